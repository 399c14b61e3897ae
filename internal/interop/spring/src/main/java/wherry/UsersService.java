package wherry;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Map;

import org.springframework.boot.SpringBootConfiguration;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.listener.KafkaListenerErrorHandler;
import org.springframework.kafka.support.KafkaNull;
import org.springframework.kafka.support.converter.RecordMessageConverter;
import org.springframework.kafka.support.converter.StringJacksonJsonMessageConverter;
import org.springframework.messaging.handler.annotation.SendTo;
import org.springframework.messaging.support.MessageBuilder;
import wherry.Peer.User;

/** The service of docs/interop.md, which has this class's body. */
@SpringBootConfiguration
@EnableAutoConfiguration
public class UsersService {

	private final Map<String, User> users = Map.of("u1", new User("u1", "Ada"));

	// begin
	@Bean
	static RecordMessageConverter json() { // the type of a listener's parameter decides
		return new StringJacksonJsonMessageConverter();
	}

	@KafkaListener(topics = "user.getUser", splitIterables = false, errorHandler = "faults")
	@SendTo
	Object getUser(String id) {
		if (id.isEmpty()) {
			throw new IllegalArgumentException("no id");
		}
		User found = users.get(id);
		return found != null ? found : MessageBuilder.withPayload(KafkaNull.INSTANCE).build();
	}

	@Bean
	static KafkaListenerErrorHandler faults() { // an exception is an answer
		return (message, e) -> MessageBuilder.withPayload(KafkaNull.INSTANCE)
				.setHeader("kafka_nest-err", e.getCause().getMessage().getBytes(UTF_8)).build();
	}
	// end
}
