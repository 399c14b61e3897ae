package wherry;

import java.nio.charset.StandardCharsets;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringBootConfiguration;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.KafkaException;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.ProducerFactory;
import org.springframework.kafka.requestreply.ReplyingKafkaTemplate;
import org.springframework.kafka.support.TopicPartitionOffset;
import org.springframework.kafka.support.converter.StringJacksonJsonMessageConverter;

/** Asks with a ReplyingKafkaTemplate. */
@SpringBootConfiguration
@EnableAutoConfiguration
public class Asks {

	@Bean
	ReplyingKafkaTemplate<String, Object, Object> asking(ProducerFactory<String, Object> requests,
			ConcurrentKafkaListenerContainerFactory<String, Object> replies, @Value("${replies}") String topic,
			@Value("${partition:-1}") int partition, @Value("${text:false}") boolean text, @Value("${checked:true}") boolean checked,
			@Value("${converter:false}") boolean converter) {
		var container = partition < 0 ? replies.createContainer(topic)
				: replies.createContainer(new TopicPartitionOffset(topic, partition, TopicPartitionOffset.SeekPosition.END));
		var template = new ReplyingKafkaTemplate<>(requests, container);
		template.setSharedReplyTopic(true);
		template.setBinaryCorrelation(!text);
		if (checked) {
			template.setReplyErrorChecker(reply -> {
				var error = reply.headers().lastHeader("kafka_nest-err");
				return error == null ? null : new KafkaException(new String(error.value(), StandardCharsets.UTF_8));
			});
		}
		if (converter) {
			template.setMessageConverter(new StringJacksonJsonMessageConverter());
		}
		return template;
	}
}
