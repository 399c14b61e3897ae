package wherry;

import static java.nio.charset.StandardCharsets.UTF_8;

import org.springframework.boot.SpringBootConfiguration;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.KafkaException;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.ProducerFactory;
import org.springframework.kafka.requestreply.ReplyingKafkaTemplate;
import wherry.Peer.User;

/** The client of docs/interop.md, which has this class's body. */
@SpringBootConfiguration
@EnableAutoConfiguration
public class UsersClient {

	// begin
	@Bean
	ReplyingKafkaTemplate<String, String, User> users(ProducerFactory<String, String> requests,
			ConcurrentKafkaListenerContainerFactory<String, User> replies) {
		var template = new ReplyingKafkaTemplate<>(requests, replies.createContainer("user.getUser.reply"));
		template.setSharedReplyTopic(true);
		template.setReplyErrorChecker(reply -> {
			var error = reply.headers().lastHeader("kafka_nest-err");
			return error == null ? null : new KafkaException(new String(error.value(), UTF_8));
		});
		return template;
	}
	// end
}
