import { randomUUID } from 'node:crypto';
import { Body, Controller, Get, Inject, Injectable, Logger, MiddlewareConsumer, Module, NestModule, NotFoundException, OnModuleInit, Post } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { ClientKafka, EventPattern, Payload } from '@nestjs/microservices';
import { ThrottlerGuard, ThrottlerModule } from '@nestjs/throttler';
import { IsNotEmpty, IsNumberString, IsString } from 'class-validator';
import { firstValueFrom } from 'rxjs';
import { logRequests, ResponseMessage } from './http.js';
import { client } from './kafka.js';
import { settings } from './settings.js';

export class CreateOrderDto {
  @IsNumberString()
  @IsNotEmpty()
  totalAmount!: string;

  @IsString()
  @IsNotEmpty()
  status!: string;

  @IsString()
  @IsNotEmpty()
  userId!: string;
}

export interface Order extends CreateOrderDto {
  id: string;
  createdAt: Date;
  updatedAt: Date;
}

@Injectable()
export class OrdersService implements OnModuleInit {
  private readonly logger = new Logger(OrdersService.name);
  private readonly orders = new Map<string, Order>(); // gone with the process

  constructor(@Inject('KAFKA_CLIENT') private readonly kafka: ClientKafka) {}

  async onModuleInit() {
    this.kafka.subscribeToResponseOf('user.getUser');
    await this.kafka.connect();
  }

  async create(dto: CreateOrderDto): Promise<Order> {
    const user = await firstValueFrom(this.kafka.send('user.getUser', dto.userId));
    if (!user) throw new NotFoundException(`User with ID ${dto.userId} not found`);
    const now = new Date();
    const order: Order = { id: randomUUID(), ...dto, createdAt: now, updatedAt: now };
    this.orders.set(order.id, order);
    this.kafka.emit('order.created', { key: order.id, value: order }); // nobody hears whether it was sent
    return order;
  }

  list(): Order[] {
    return [...this.orders.values()];
  }

  pay(id: string): void {
    const order = this.orders.get(id);
    if (!order) return this.logger.warn(`payment of an unknown order ${id}`);
    order.status = 'paid';
    order.updatedAt = new Date();
  }

  // Each call emits, also for an order that is cancelled already.
  cancel(id: string, reason: string): void {
    const order = this.orders.get(id);
    if (!order) return this.logger.warn(`cannot cancel an unknown order ${id}`);
    order.status = 'cancelled';
    order.updatedAt = new Date();
    this.kafka.emit('order.cancelled', { key: id, value: { order, reason, cancelledAt: new Date() } });
    this.logger.log(`order ${id} cancelled: ${reason}`);
  }
}

@Controller('orders')
export class OrdersController {
  constructor(private readonly orders: OrdersService) {}

  @Post()
  @ResponseMessage('Order created successfully')
  create(@Body() dto: CreateOrderDto) {
    return this.orders.create(dto);
  }

  @Get()
  @ResponseMessage('Orders retrieved successfully')
  list() {
    return this.orders.list();
  }

  @EventPattern('payment.created')
  paymentCreated(@Payload() payment: { orderId: string }) {
    this.orders.pay(payment.orderId);
  }

  @EventPattern('payment.failed')
  paymentFailed(@Payload() { order, error }: { order: Order; error: string }) {
    this.orders.cancel(order.id, `Payment failed: ${error}`);
  }

  @EventPattern('billing.dlq')
  billingDlq(@Payload() { originalMessage, error }: { originalMessage: { value: Order }; error: Error }) {
    this.orders.cancel(originalMessage.value.id, `Payment failed: ${error.message}`);
  }
}

@Module({
  imports: [
    client('orders', false),
    ThrottlerModule.forRoot({
      throttlers: [
        { name: 'short', ttl: 5_000, limit: 3 },
        { name: 'medium', ttl: 20_000, limit: 10 },
        { name: 'long', ttl: 90_000, limit: 25 },
      ],
      skipIf: () => !settings.limits,
    }),
  ],
  controllers: [OrdersController],
  providers: [OrdersService, { provide: APP_GUARD, useClass: ThrottlerGuard }],
})
export class OrdersModule implements NestModule {
  configure(consumer: MiddlewareConsumer) {
    consumer.apply(logRequests).forRoutes('*path');
  }
}
