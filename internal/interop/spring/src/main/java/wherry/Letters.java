package wherry;

import java.util.Map;

import org.springframework.boot.SpringBootConfiguration;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBooleanProperty;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.annotation.BackOff;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.annotation.RetryableTopic;
import org.springframework.kafka.core.KafkaOperations;
import org.springframework.kafka.listener.DeadLetterPublishingRecoverer;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.kafka.support.converter.StringJacksonJsonMessageConverter;
import org.springframework.kafka.support.converter.RecordMessageConverter;
import org.springframework.messaging.handler.annotation.Headers;
import org.springframework.util.backoff.FixedBackOff;
import wherry.Peer.Heard;
import wherry.Peer.User;

/** Fails, and writes dead letters. */
@SpringBootConfiguration
@EnableAutoConfiguration
public class Letters {

	@Bean
	Heard heard() {
		return new Heard();
	}

	@Bean
	@ConditionalOnBooleanProperty("converter")
	static RecordMessageConverter json() {
		return new StringJacksonJsonMessageConverter();
	}

	@Bean
	static DefaultErrorHandler errorHandler(KafkaOperations<?, ?> template) {
		return new DefaultErrorHandler(new DeadLetterPublishingRecoverer(template), new FixedBackOff(0, 2));
	}

	/** Tried three times, then to spring.pay-dlt. */
	@KafkaListener(topics = "${prefix}.pay", groupId = "${prefix}.billing")
	void pay(User user, @Headers Map<String, Object> headers) {
		handle("pay", user, headers);
	}

	/** Tried again from topics, then to spring.ship-dlt. */
	@RetryableTopic(attempts = "3", backOff = @BackOff(20), autoCreateTopics = "false")
	@KafkaListener(topics = "${prefix}.ship", groupId = "${prefix}.shipping")
	void ship(User user, @Headers Map<String, Object> headers) {
		handle("ship", user, headers);
	}

	private void handle(String listener, User user, Map<String, Object> headers) {
		heard().add(listener, user, headers);
		if (!heard().healed) {
			throw new IllegalArgumentException("declined: " + user.id());
		}
	}
}
