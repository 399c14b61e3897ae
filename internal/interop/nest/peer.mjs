// A NestJS peer for the tests of package reqreply, in plain JavaScript:
// decorators are called as the functions that they are.
//
//   node peer.mjs server BROKERS        answers on nest.ask and nest.echo
//   node peer.mjs client BROKERS        calls wherry.ask and wherry.echo: reads a request on each line of stdin,
//                                       {pattern, data | message}, and writes {values, error, completed} for each
//
// Both write the line "ready" when they are.
import 'reflect-metadata';
import { createInterface } from 'node:readline';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientKafka, Ctx, MessagePattern, Payload, RpcException, Transport } from '@nestjs/microservices';
import { EMPTY, from, interval, map, of, take, throwError, concat } from 'rxjs';

const [role, brokers] = process.argv.slice(2);
const client = { clientId: 'nest-peer', brokers: brokers.split(','), retry: { initialRetryTime: 50, retries: 20 } };
const say = (line) => process.stdout.write(line + '\n');

class Answers {
  // What a handler may answer, by the text that it is asked.
  ask(what) {
    switch (what) {
      case 'object': return { id: 'u1', name: 'Ada', tags: ['a'], nested: { n: 1 } };
      case 'string': return 'user1';
      case 'number': return 42;
      case 'float': return 1.5;
      case 'true': return true;
      case 'false': return false;
      case 'null': return null;
      case 'undefined': return undefined;
      case 'empty': return '';
      case 'array': return [1, 'two', null];
      case 'empty array': return [];
      case 'rpc text': throw new RpcException('no such user');
      case 'rpc object': throw new RpcException({ code: 'E42', message: 'no such user', extra: [1] });
      case 'error': throw new Error('a secret');
      case 'promise': return Promise.resolve({ later: true });
      case 'stream': return of('a', 'b', 'c');
      case 'slow stream': return interval(20).pipe(take(3), map((n) => ({ n })));
      case 'empty stream': return EMPTY;
      case 'broken stream': return concat(of('a', 'b'), throwError(() => new RpcException('no more')));
      default: throw new RpcException(`asked ${JSON.stringify(what)}`);
    }
  }

  // What arrived. (An answer with a field key or value would be taken for a record.)
  echo(data, context) {
    const message = context.getMessage();
    const headers = Object.fromEntries(Object.entries(message.headers).filter(([k]) => !k.startsWith('kafka_')));
    return { type: data === null ? 'null' : Array.isArray(data) ? 'array' : typeof data, data, recordKey: message.key?.toString() ?? null, headers };
  }
}

function pattern(topic, method, ...params) {
  params.forEach((p, i) => p(Answers.prototype, method, i));
  const descriptor = Object.getOwnPropertyDescriptor(Answers.prototype, method);
  MessagePattern(topic, Transport.KAFKA)(Answers.prototype, method, descriptor);
}

async function server() {
  pattern('nest.ask', 'ask', Payload());
  pattern('nest.echo', 'echo', Payload(), Ctx());
  Controller()(Answers);
  class App {}
  Module({ controllers: [Answers] })(App);
  const app = await NestFactory.createMicroservice(App, {
    logger: false,
    transport: Transport.KAFKA,
    options: { client, consumer: { groupId: 'nest', allowAutoTopicCreation: false, maxWaitTimeInMs: 50 }, subscribe: { fromBeginning: true } },
  });
  await app.listen();
  say('ready');
}

async function caller() {
  const nest = new ClientKafka({ client, consumer: { groupId: 'nest', maxWaitTimeInMs: 50 } });
  nest.subscribeToResponseOf('wherry.ask');
  nest.subscribeToResponseOf('wherry.echo');
  await nest.connect();
  // Replies go to a partition that is assigned: wait until both topics have one.
  while (Object.keys(nest.getConsumerAssignments()).length < 2) await new Promise((r) => setTimeout(r, 20));
  say('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const { pattern, data, message } = JSON.parse(line);
    const result = await new Promise((done) => {
      const values = [];
      const timer = setTimeout(() => done({ values, error: 'timeout' }), 20000);
      const end = (r) => { clearTimeout(timer); done(r); };
      nest.send(pattern, message ?? data).subscribe({
        next: (v) => values.push(v),
        error: (error) => end({ values, error: error instanceof Error ? { message: error.message } : error }),
        complete: () => end({ values, completed: true }),
      });
    });
    say(JSON.stringify(result));
  }
  await nest.close();
}

await (role === 'server' ? server() : caller());
