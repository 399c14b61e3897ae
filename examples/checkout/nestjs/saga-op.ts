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
 * The key is in a header of its own, such as checkout/o-1/pay/do.
 */
export const SagaOp = createParamDecorator((_: unknown, context: ExecutionContext): Op => {
  const { headers } = context.switchToRpc().getContext<KafkaContext>().getMessage();
  const key = `${headers?.['wherry-saga-op']}`;
  return { key, step: key.slice(0, key.lastIndexOf('/')) };
});
