import { Controller, Logger, Module } from '@nestjs/common';
import { EventPattern, Payload } from '@nestjs/microservices';
import type { Order } from './orders.js';

@Controller()
export class NotificationsController {
  private readonly logger = new Logger('Notifications');

  @EventPattern('order.created')
  orderCreated(@Payload() order: Order) {
    this.logger.log(`order ${order.id} was received`);
  }

  @EventPattern('payment.created')
  paymentCreated(@Payload() payment: { orderId: string }) {
    this.logger.log(`order ${payment.orderId} was paid`);
  }

  @EventPattern('payment.failed')
  paymentFailed(@Payload() { order, error }: { order: Order; error: string }) {
    this.logger.log(`order ${order.id} could not be paid: ${error}`);
  }

  @EventPattern('order.cancelled')
  orderCancelled(@Payload() { order, reason }: { order: Order; reason: string }) {
    this.logger.log(`order ${order.id} was cancelled: ${reason}`);
  }
}

@Module({ controllers: [NotificationsController] })
export class NotificationsModule {}
