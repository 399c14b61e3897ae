// Creates a topic, produces to it and consumes it in a group, with KafkaJS.
// Usage: node kafkajs.js host:port
const { Kafka, logLevel } = require('kafkajs')

const kafka = new Kafka({ clientId: 'js', brokers: [process.argv[2]], logLevel: logLevel.ERROR })
const topic = 'from-js'

async function main() {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: 3, replicationFactor: 1 }] })
  const meta = await admin.fetchTopicMetadata({ topics: [topic] })
  console.log(`created with ${meta.topics[0].partitions.length} partitions`)
  await admin.disconnect()

  const producer = kafka.producer()
  await producer.connect()
  await producer.send({
    topic,
    acks: -1,
    messages: ['one', 'two', 'three'].map((value) => ({ key: value, value, headers: { from: 'js' } })),
  })
  await producer.disconnect()

  const consumer = kafka.consumer({ groupId: 'js-readers' })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const seen = []
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, (e) => reject(e.payload.error))
    consumer
      .run({
        eachMessage: async ({ message }) => {
          if (message.headers.from.toString() !== 'js') throw new Error('the header is lost')
          seen.push(message.value.toString())
          if (seen.length === 3) resolve()
        },
      })
      .catch(reject)
  })
  await consumer.disconnect()
  for (const value of seen.sort()) console.log(`read ${value}`)
  console.log('ok')
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
