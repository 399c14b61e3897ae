// Dead letters in JavaScript, for the tests of package dlq.
//
//   node letters.mjs BROKERS
//
// A NestJS service fails with each message of js.orders and writes its dead
// letter to js.dlq, as services do that send KafkaJS's message and the error. It
// also listens to js.dlq, and so does a plain KafkaJS consumer, which reads
// js.plain.dlq too. What both hear is written on a line each:
// {by, topic, key, value, headers}; values of KafkaJS are base64.
import 'reflect-metadata';
import kafkajs from 'kafkajs';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientKafka, Ctx, EventPattern, Payload, Transport } from '@nestjs/microservices';
import { lastValueFrom } from 'rxjs';

const brokers = process.argv[2].split(',');
const client = { clientId: 'letters', brokers, retry: { initialRetryTime: 50, retries: 20 } };
const say = (what) => process.stdout.write(JSON.stringify(what) + '\n');
const kafkaClient = new ClientKafka({ client, producerOnlyMode: true });

class Billing {
  async pay(order, context) {
    const originalMessage = context.getMessage();
    const error = new Error('Payment failed');
    const dlqMessage = {
      originalMessage,
      error: { message: error.message, stack: error.stack },
      failedAt: new Date(),
      retryCount: 3,
    };
    await lastValueFrom(kafkaClient.emit('js.dlq', { key: originalMessage.key, value: dlqMessage }));
  }

  dead(letter, context) {
    const { key, headers } = context.getMessage();
    say({ by: 'nest', topic: context.getTopic(), key, value: letter, headers });
  }
}

function on(topic, method) {
  Payload()(Billing.prototype, method, 0);
  Ctx()(Billing.prototype, method, 1);
  EventPattern(topic, Transport.KAFKA)(Billing.prototype, method, Object.getOwnPropertyDescriptor(Billing.prototype, method));
}
on('js.orders', 'pay');
on('js.dlq', 'dead');
Controller()(Billing);
class App {}
Module({ controllers: [Billing] })(App);

const app = await NestFactory.createMicroservice(App, {
  logger: false,
  transport: Transport.KAFKA,
  options: { client, consumer: { groupId: 'js', allowAutoTopicCreation: false, maxWaitTimeInMs: 50 }, subscribe: { fromBeginning: true } },
});
const consumer = new kafkajs.Kafka({ ...client, logLevel: kafkajs.logLevel.NOTHING }).consumer({ groupId: 'js-plain', maxWaitTimeInMs: 50, allowAutoTopicCreation: false });
await Promise.all([app.listen(), kafkaClient.connect(), consumer.connect()]);
await consumer.subscribe({ topics: ['js.dlq', 'js.plain.dlq'], fromBeginning: true });
await consumer.run({
  eachMessage: async ({ topic, message: { key, value, headers } }) =>
    say({
      by: 'kafkajs', topic, key: key?.toString() ?? null, value: value?.toString('base64') ?? null,
      headers: Object.fromEntries(Object.entries(headers).map(([k, v]) => [k, v?.toString() ?? null])),
    }),
});
process.stdout.write('ready\n');
