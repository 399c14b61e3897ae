// What the process is told, by its environment.
const env = process.env;

export const settings = {
  brokers: (env.KAFKA_BROKERS ?? '127.0.0.1:9092').split(','),
  // How payments go: ok, refuse, fail, flaky (the first two attempts fail) or timeout (they are late).
  pay: env.PAY ?? 'ok',
  // How late.
  late: Number(env.LATE_MS ?? 10_000),
  // Where the book is.
  book: env.BOOK ?? 'payments.jsonl',
  // How long KafkaJS leaves a fetch at the broker.
  maxWait: Number(env.MAX_WAIT_MS ?? 5000),
};
