import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Controller, Inject, Injectable, Logger, Module } from '@nestjs/common';
import { ClientKafka, Ctx, EventPattern, KafkaContext, Payload } from '@nestjs/microservices';
import { client } from './kafka.js';
import type { Order } from './orders.js';
import { settings } from './settings.js';

@Injectable()
export class BillingService {
  private readonly logger = new Logger(BillingService.name);
  private readonly maxRetries = 3;

  constructor(@Inject('KAFKA_CLIENT') private readonly kafka: ClientKafka) {}

  // The waits are within the handler, so whatever else is in the batch waits too.
  async createPayment(order: Order, original: unknown, retry = 0): Promise<void> {
    try {
      await this.charge(order);
    } catch (e) {
      const error = e as Error;
      if (retry < this.maxRetries) {
        this.logger.warn(`payment of order ${order.id} failed, retry ${retry + 1}: ${error.message}`);
        await delay(settings.retryInitial * 2 ** retry);
        return this.createPayment(order, original, retry + 1);
      }
      this.kafka.emit('payment.failed', { key: order.id, value: { order, error: error.message, failedAt: new Date() } });
      this.sendToDlq(order, original, error);
      return;
    }
    const payment = { id: randomUUID(), orderId: order.id, amount: order.totalAmount, status: 'PAID', createdAt: new Date(), updatedAt: null };
    this.kafka.emit('payment.created', { key: order.id, value: payment });
    this.logger.log(`payment of order ${order.id} created`);
  }

  private async charge(order: Order): Promise<void> {
    const { payments } = settings;
    if (payments === 'hang') await new Promise(() => {});
    const limit = payments.startsWith('above=') ? Number(payments.slice('above='.length)) : Infinity;
    if (payments === 'fail' || Number(order.totalAmount) > limit) {
      throw new Error(`the payment of ${order.totalAmount} was declined`);
    }
  }

  private sendToDlq(order: Order, originalMessage: unknown, error: Error): void {
    const value = {
      originalMessage,
      error: { message: error.message, stack: error.stack, name: error.name },
      failedAt: new Date(),
      retryCount: this.maxRetries,
    };
    this.kafka.emit('billing.dlq', { key: order.id, value });
  }
}

@Controller()
export class BillingController {
  constructor(private readonly billing: BillingService) {}

  @EventPattern('order.created')
  async orderCreated(@Payload() order: Order, @Ctx() context: KafkaContext) {
    await this.billing.createPayment(order, context.getMessage());
  }
}

@Module({ imports: [client('billing', true)], controllers: [BillingController], providers: [BillingService] })
export class BillingModule {}
