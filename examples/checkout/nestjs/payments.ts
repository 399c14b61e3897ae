// The payments of a checkout, in NestJS: two ordinary handlers. That a saga asks
// shows in one thing, the Op that makes them idempotent.
import 'reflect-metadata';
import { setTimeout as delay } from 'node:timers/promises';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, type MicroserviceOptions, Payload, RpcException, Transport } from '@nestjs/microservices';
import { Book } from './book.js';
import { type Op, SagaOp } from './saga-op.js';
import { settings } from './settings.js';

interface Charge {
  customer: string;
  amount: number; // in cents
}

@Controller()
export class PaymentsController {
  private readonly tries = new Map<string, number>(); // by key

  constructor(private readonly book: Book) {}

  @MessagePattern('payments.pay')
  async pay(@Payload() charge: Charge, @SagaOp() op: Op) {
    this.fail(op);
    const { payment } = this.book.charge(op.step, charge.amount);
    if (settings.pay === 'timeout') await delay(settings.late);
    return { id: payment };
  }

  @MessagePattern('payments.refund')
  refund(@SagaOp() op: Op) {
    const { payment } = this.book.refund(op.step);
    return { id: payment };
  }

  // An RpcException is a no: the saga undoes what was done. Any other error is a
  // failure: the saga tries again.
  private fail({ key }: Op) {
    if (settings.pay === 'refuse') throw new RpcException({ status: 'error', code: 'refused', message: 'the card was declined' });
    const tries = (this.tries.get(key) ?? 0) + 1;
    this.tries.set(key, tries);
    if (settings.pay === 'fail' || (settings.pay === 'flaky' && tries <= 2)) throw new Error('the provider is down');
  }
}

@Module({ controllers: [PaymentsController], providers: [Book] })
class PaymentsModule {}

const app = await NestFactory.createMicroservice<MicroserviceOptions>(PaymentsModule, {
  transport: Transport.KAFKA,
  options: {
    client: { clientId: 'payments', brokers: settings.brokers },
    consumer: { groupId: 'payments', maxWaitTimeInMs: settings.maxWait },
    subscribe: { fromBeginning: true },
  },
});
app.enableShutdownHooks();
await app.listen();
console.log('ready');
