package wherry;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Headers;
import org.slf4j.LoggerFactory;
import org.springframework.boot.Banner;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.core.ParameterizedTypeReference;
import org.springframework.kafka.config.KafkaListenerEndpointRegistry;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.requestreply.ReplyingKafkaTemplate;
import org.springframework.kafka.support.KafkaHeaders;
import org.springframework.kafka.support.KafkaNull;
import org.springframework.messaging.Message;
import org.springframework.messaging.support.MessageBuilder;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * A Spring Kafka peer for tests: one process, in which tests open Spring Boot applications. Says "ready", then reads
 * a request on each line of its standard input and answers it on one of its standard output, in any order. It ends
 * with its input.
 *
 * <pre>
 * {"id":1,"op":"open","name":"a","app":"Answers","properties":{"spring.kafka.bootstrap-servers":"…"}}
 * {"id":2,"op":"ask","name":"a","topic":"…","value":…,"as":"…","key":"…","headers":{…},"timeout":ms}
 * {"id":3,"op":"send", as ask}     without a reply
 * {"id":4,"op":"heard","name":"a"}    the next that a listener heard
 * {"id":5,"op":"heal","name":"a"}     listeners do not fail any more
 * {"id":6,"op":"close","name":"a"}
 * </pre>
 */
public class Peer {

	/** What the listeners of an application heard, and whether they fail. */
	static class Heard {
		final LinkedBlockingQueue<Map<String, Object>> all = new LinkedBlockingQueue<>();
		volatile boolean healed;

		void add(String listener, Object value, Map<String, Object> headers) {
			all.add(describe(listener, value, headers));
		}
	}

	public record User(String id, String name) { }

	static final JsonMapper json = JsonMapper.shared();
	private final Map<String, ConfigurableApplicationContext> apps = new ConcurrentHashMap<>();

	public static void main(String[] args) throws Exception {
		PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
		System.setOut(System.err); // logs
		System.setProperty("org.springframework.boot.logging.LoggingSystem", "none"); // it is one for all applications
		((Logger) LoggerFactory.getLogger(Logger.ROOT_LOGGER_NAME)).setLevel(Level.WARN);
		Peer peer = new Peer();
		var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
		var pool = Executors.newCachedThreadPool();
		out.println("ready");
		for (String line = in.readLine(); line != null; line = in.readLine()) {
			JsonNode request = json.readTree(line);
			pool.execute(() -> {
				Map<String, Object> answer = new LinkedHashMap<>();
				try {
					answer.putAll(peer.handle(request));
				}
				catch (Throwable e) {
					Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
					answer.put("error", cause.getClass().getName());
					answer.put("message", String.valueOf(cause.getMessage()));
				}
				answer.put("id", request.get("id"));
				out.println(json.writeValueAsString(answer));
			});
		}
		Runtime.getRuntime().halt(0);
	}

	private Map<String, Object> handle(JsonNode request) throws Exception {
		String name = request.get("name").asString();
		if (request.get("op").asString().equals("open")) {
			apps.put(name, open(request));
			return Map.of();
		}
		var app = apps.get(name);
		if (app == null) {
			return Map.of(); // closed already
		}
		switch (request.get("op").asString()) {
			case "ask": return ask(app, request);
			case "send": app.getBean(KafkaTemplate.class).send(record(request)).get(); return Map.of();
			case "heard": {
				var heard = app.getBean(Heard.class).all.poll(60, TimeUnit.SECONDS);
				if (heard == null) {
					throw new IllegalStateException("nothing was heard in 60 s");
				}
				return heard;
			}
			case "heal": app.getBean(Heard.class).healed = true; return Map.of();
			case "close": apps.remove(name); app.close(); return Map.of();
			default: throw new IllegalArgumentException("op " + request.get("op"));
		}
	}

	private static ConfigurableApplicationContext open(JsonNode request) throws Exception {
		Map<String, Object> properties = new LinkedHashMap<>();
		request.get("properties").properties().forEach(p -> properties.put(p.getKey(), p.getValue().asString()));
		ConfigurableApplicationContext app;
		synchronized (Peer.class) { // made to be one in a process
			app = new SpringApplicationBuilder(Class.forName("wherry." + request.get("app").asString()))
					.web(WebApplicationType.NONE).bannerMode(Banner.Mode.OFF).logStartupInfo(false)
					.registerShutdownHook(false).properties(properties).run();
		}
		for (var container : app.getBean(KafkaListenerEndpointRegistry.class).getAllListenerContainers()) {
			while (container.getAssignedPartitions().isEmpty()) {
				Thread.sleep(10);
			}
		}
		for (var template : app.getBeansOfType(ReplyingKafkaTemplate.class).values()) {
			template.waitForAssignment(Duration.ofMinutes(1));
		}
		return app;
	}

	/** What is asked, of the type that "as" says. */
	private static Object value(JsonNode request) {
		JsonNode value = request.get("value");
		if (value == null || value.isNull()) {
			return null;
		}
		String as = request.path("as").asString("");
		return switch (as) {
			case "bytes" -> Base64.getDecoder().decode(value.asString());
			case "user" -> json.treeToValue(value, User.class);
			default -> json.treeToValue(value, Object.class);
		};
	}

	private static ProducerRecord<Object, Object> record(JsonNode request) {
		var record = new ProducerRecord<Object, Object>(request.get("topic").asString(), request.path("key").asString(null), value(request));
		request.path("headers").properties().forEach(h -> record.headers().add(h.getKey(), h.getValue().asString().getBytes(StandardCharsets.UTF_8)));
		return record;
	}

	@SuppressWarnings("unchecked")
	private static Map<String, Object> ask(ConfigurableApplicationContext app, JsonNode request) throws Exception {
		ReplyingKafkaTemplate<Object, Object, Object> template = app.getBean(ReplyingKafkaTemplate.class);
		var timeout = Duration.ofMillis(request.path("timeout").asLong(30_000));
		if (request.path("as").asString("").equals("message")) { // through the template's converter and header mapper
			var message = MessageBuilder.withPayload(json.treeToValue(request.get("value"), Object.class)).setHeader(KafkaHeaders.TOPIC, request.get("topic").asString());
			request.path("headers").properties().forEach(h -> message.setHeader(h.getKey(), json.treeToValue(h.getValue(), Object.class)));
			Message<?> reply = template.sendAndReceive(message.build(), timeout, new ParameterizedTypeReference<Object>() { }).get();
			return describe("", reply.getPayload(), reply.getHeaders());
		}
		ConsumerRecord<Object, Object> reply = template.sendAndReceive(record(request), timeout).get();
		var answer = describe("", reply.value(), headers(reply.headers()));
		answer.put("key", reply.key());
		answer.put("partition", reply.partition());
		return answer;
	}

	static Map<String, Object> headers(Headers headers) {
		Map<String, Object> all = new LinkedHashMap<>();
		headers.forEach(h -> all.put(h.key(), h.value()));
		return all;
	}

	static Map<String, Object> describe(String listener, Object value, Map<String, Object> headers) {
		Map<String, Object> all = new LinkedHashMap<>();
		if (!listener.isEmpty()) {
			all.put("listener", listener);
		}
		all.put("type", value == null ? null : value.getClass().getName());
		all.put("value", value instanceof KafkaNull ? null : value);
		Map<String, Object> texts = new LinkedHashMap<>();
		headers.forEach((key, v) -> texts.put(key, v instanceof byte[] b ? new String(b, StandardCharsets.ISO_8859_1) : String.valueOf(v)));
		all.put("headers", texts);
		return all;
	}
}
