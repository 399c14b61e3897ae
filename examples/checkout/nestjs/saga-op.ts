import { createParamDecorator, ExecutionContext } from '@nestjs/common';
import { KafkaContext } from '@nestjs/microservices';

/** What a saga asks for. */
export interface Op {
  /** The idempotency key: the same for every attempt, and for nothing else. */
  key: string;
  /** The step of the saga: the same whether it is done or undone. */
  step: string;
}

/**
 * What a saga asks for, as a parameter of a handler:
 *
 *     @MessagePattern('payments.pay')
 *     pay(@Payload() charge: Charge, @SagaOp() op: Op) {…}
 *
 * It stands in the correlation id, which is the saga's id (in base64url), the
 * step, d or u for do or undo, and two parts that are another story: by0x.pay.d.1.0.
 */
export const SagaOp = createParamDecorator((_: unknown, context: ExecutionContext): Op => {
  const { headers } = context.switchToRpc().getContext<KafkaContext>().getMessage();
  const [id, step, direction] = `${headers?.['kafka_correlationId']}`.split('.');
  const name = `${headers?.['wherry-saga']}/${Buffer.from(id, 'base64url')}/${step}`;
  return { key: `${name}/${direction === 'u' ? 'undo' : 'do'}`, step: name };
});
