import { ClientsModule, KafkaOptions, Transport } from '@nestjs/microservices';
import { settings } from './settings.js';

/** The Kafka side of a service that listens: NestJS makes its group `<name>-server`. */
export function server(name: string): KafkaOptions {
  return {
    transport: Transport.KAFKA,
    options: {
      client: { clientId: name, brokers: settings.brokers },
      consumer: { groupId: name, maxWaitTimeInMs: settings.maxWait },
      subscribe: { fromBeginning: true },
      ...(settings.groupPostfix === undefined ? {} : { postfixId: settings.groupPostfix }),
    },
  };
}

/** The client that a service emits and sends with: NestJS makes its group `<name>-client`. */
export function client(name: string, producerOnlyMode: boolean) {
  return ClientsModule.register([
    {
      name: 'KAFKA_CLIENT',
      transport: Transport.KAFKA,
      options: {
        client: { clientId: name, brokers: settings.brokers },
        consumer: { groupId: name, maxWaitTimeInMs: settings.maxWait },
        producerOnlyMode,
      },
    },
  ]);
}
