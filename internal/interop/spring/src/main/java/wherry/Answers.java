package wherry;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.springframework.boot.SpringBootConfiguration;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBooleanProperty;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.listener.KafkaListenerErrorHandler;
import org.springframework.kafka.support.KafkaNull;
import org.springframework.kafka.support.converter.StringJacksonJsonMessageConverter;
import org.springframework.kafka.support.converter.RecordMessageConverter;
import org.springframework.messaging.Message;
import org.springframework.messaging.handler.annotation.Headers;
import org.springframework.messaging.handler.annotation.SendTo;
import org.springframework.messaging.support.MessageBuilder;
import wherry.Peer.Heard;
import wherry.Peer.User;

/** Answers with @KafkaListener and @SendTo. */
@SpringBootConfiguration
@EnableAutoConfiguration
public class Answers {

	@Bean
	Heard heard() {
		return new Heard();
	}

	@Bean
	@ConditionalOnBooleanProperty("converter")
	static RecordMessageConverter json() {
		return new StringJacksonJsonMessageConverter();
	}

	/** What a listener may answer, by the text that it is asked. */
	@KafkaListener(topics = "${prefix}.ask", splitIterables = false)
	@SendTo
	Object ask(String what, @Headers Map<String, Object> headers) {
		heard().add("ask", what, headers);
		return switch (what) {
			case "object" -> new User("u1", "Ada");
			case "map" -> Map.of("nested", Map.of("n", 1));
			case "string" -> "user1";
			case "number" -> 42;
			case "float" -> 1.5;
			case "true" -> true;
			case "false" -> false;
			case "null" -> null;
			case "KafkaNull" -> MessageBuilder.withPayload(KafkaNull.INSTANCE).build();
			case "empty" -> "";
			case "array" -> Arrays.asList(1, "two", null);
			case "empty array" -> List.of();
			case "bytes" -> new byte[] {0, (byte) 0xff};
			case "Message" -> MessageBuilder.withPayload(new User("u1", "Ada")).setHeader("tenant", "t1").build();
			default -> throw new IllegalStateException("asked " + what);
		};
	}

	/** What arrived. */
	@KafkaListener(topics = "${prefix}.echo")
	@SendTo
	Map<String, Object> echo(Message<Object> message) {
		Map<String, Object> types = new LinkedHashMap<>();
		message.getHeaders().forEach((k, v) -> types.put(k, v == null ? "null" : v.getClass().getSimpleName()));
		var echo = Peer.describe("echo", message.getPayload(), message.getHeaders());
		echo.put("types", types);
		return echo;
	}

	/** A type of its own. */
	@KafkaListener(topics = "${prefix}.user")
	@SendTo
	User user(User user) {
		return new User(user.id(), user.name().toUpperCase());
	}

	/** As a listener is without splitIterables = false. */
	@KafkaListener(topics = "${prefix}.list")
	@SendTo
	List<String> list(String what) {
		return List.of(what, what);
	}

	/** Errors are answers, in the header that a wherry Method and a NestJS client read. */
	@KafkaListener(topics = "${prefix}.guarded", errorHandler = "faults")
	@SendTo
	User guarded(String id) {
		throw new IllegalArgumentException("no such user: " + id);
	}

	@Bean
	static KafkaListenerErrorHandler faults() {
		return (message, e) -> MessageBuilder.withPayload(KafkaNull.INSTANCE)
				.setHeader("kafka_nest-err", e.getCause().getMessage().getBytes(StandardCharsets.UTF_8)).build();
	}
}
