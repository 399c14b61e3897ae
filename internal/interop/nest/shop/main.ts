// The seed's services in one process, or some of them: SERVICES=orders,billing node main.js.
// Each is a NestJS application with a group of its own, as if it ran alone.
import 'reflect-metadata';
import { type INestApplication, type INestMicroservice, type Type, ValidationPipe } from '@nestjs/common';
import { NestFactory, Reflector } from '@nestjs/core';
import { AuthModule } from './auth.js';
import { BillingModule } from './billing.js';
import { HttpExceptionFilter, ResponseInterceptor } from './http.js';
import { server } from './kafka.js';
import { NotificationsModule } from './notifications.js';
import { OrdersModule } from './orders.js';
import { settings } from './settings.js';

async function orders() {
  const app = await NestFactory.create(OrdersModule);
  app.connectMicroservice(server('orders'));
  app.useGlobalPipes(new ValidationPipe({ whitelist: true, forbidNonWhitelisted: true, transform: true }));
  app.useGlobalFilters(new HttpExceptionFilter());
  app.useGlobalInterceptors(new ResponseInterceptor(app.get(Reflector)));
  closeOnSignal(app);
  await app.startAllMicroservices();
  await app.listen(settings.port, '127.0.0.1');
  console.log(`listening on ${await app.getUrl()}`);
}

async function listener(name: string, module: Type) {
  const app = await NestFactory.createMicroservice(module, server(name));
  closeOnSignal(app);
  await app.listen();
}

function closeOnSignal(app: INestApplication | INestMicroservice) {
  if (settings.shutdownHooks) app.enableShutdownHooks();
}

const services: Record<string, () => Promise<void>> = {
  orders,
  billing: () => listener('billing', BillingModule),
  auth: () => listener('auth', AuthModule),
  notifications: () => listener('notifications', NotificationsModule),
};

await Promise.all(settings.services.map((name) => services[name]()));
console.log('ready');
