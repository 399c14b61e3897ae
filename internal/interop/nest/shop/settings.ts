// What a process is told, by its environment.
const env = process.env;

export const settings = {
  services: (env.SERVICES ?? 'orders,billing,auth,notifications').split(','),
  brokers: (env.KAFKA_BROKERS ?? '127.0.0.1:9092').split(','),
  port: Number(env.PORT ?? 3000),
  // ok, fail, hang, or above=N: those of more than N fail.
  payments: env.PAYMENTS ?? 'ok',
  retryInitial: Number(env.RETRY_INITIAL_MS ?? 1000),
  limits: env.LIMITS !== 'off',
  // Nothing, as in the seed, or "on": a signal closes the application first.
  shutdownHooks: env.SHUTDOWN_HOOKS === 'on',
  // What NestJS puts behind a groupId. With "" a group has its plain name.
  groupPostfix: env.GROUP_POSTFIX,
  // How long KafkaJS leaves a fetch at the broker, which is how long a stop may take.
  maxWait: Number(env.MAX_WAIT_MS ?? 5000),
};
