// Scenarios of the Node gRPC client: clients.js HOST:PORT TOPIC GROUP [NAME...]
// Prints `PASS|FAIL js_NAME ms note` for each. The topic exists.
const { Producer, SimpleConsumer, PushConsumer, ConsumeResult } = require('rocketmq-client-nodejs');

const [endpoints, topic, group, ...wanted] = process.argv.slice(2);
const PATIENCE = 60_000;
// The machine may be busy: the default is 3 s.
const requestTimeout = 20_000;
// What the client itself logs is of use only when a scenario fails; it goes to standard error.
const logger = ['debug', 'info', 'warn', 'error'].reduce((all, level) => ({ ...all, [level]: (...of) => console.error(level, ...of) }), {});

function check(holds, why) {
  if (!holds) throw new Error(why);
}

async function send(tag, bodies) {
  const producer = new Producer({ endpoints, requestTimeout, logger });
  await producer.startup();
  try {
    for (const body of bodies) {
      const receipt = await producer.send({ topic, tag, keys: ['k-' + body], body: Buffer.from(body) });
      check(receipt.messageId, 'no message id');
    }
  } finally {
    await producer.shutdown();
  }
}

async function simple(tag) {
  const subscriptions = new Map([[topic, tag]]);
  const consumer = new SimpleConsumer({ endpoints, requestTimeout, logger, consumerGroup: group + tag, subscriptions, awaitDuration: 5_000 });
  await consumer.startup();
  return consumer;
}

// Receives until there are `count` messages, as body -> message.
async function receive(consumer, count, invisible) {
  const got = new Map();
  const end = Date.now() + PATIENCE;
  while (got.size < count && Date.now() < end) {
    for (const message of await consumer.receive(16, invisible)) got.set(message.body.toString(), message);
  }
  check(got.size === count, `${[...got.keys()]} of ${count}`);
  return got;
}

const scenarios = {
  // What is acknowledged does not come again, what is not does, as its second delivery.
  async ack() {
    const bodies = Array.from({ length: 10 }, (_, n) => 'a' + n);
    await send('ack', bodies);
    const consumer = await simple('ack');
    try {
      const got = await receive(consumer, 10, 10_000);
      check([...got.keys()].sort().join() === bodies.join(), 'bodies');
      for (const [body, message] of got) {
        check(message.tag === 'ack' && message.deliveryAttempt === 1, 'tag and attempt of ' + body);
        if (body !== 'a7') await consumer.ack(message);
      }
      const again = await receive(consumer, 1, 30_000);
      check(again.get('a7')?.deliveryAttempt === 2, `again: ${[...again.keys()]}`);
      await consumer.ack(again.get('a7'));
      check((await consumer.receive(16, 10_000)).length === 0, 'something came again');
    } finally {
      await consumer.shutdown();
    }
    return '10 received, 1 again';
  },
  // A message comes again when its invisible time is made short, and is acknowledged then.
  async change() {
    await send('change', ['c0', 'c1']);
    const consumer = await simple('change');
    try {
      const got = await receive(consumer, 2, 300_000);
      await consumer.changeInvisibleDuration(got.get('c0'), 3_000);
      await consumer.ack(got.get('c1'));
      const again = await receive(consumer, 1, 30_000);
      check(again.get('c0')?.deliveryAttempt === 2, `again: ${[...again.keys()]}`);
      await consumer.ack(again.get('c0'));
      check((await consumer.receive(16, 10_000)).length === 0, 'something came again');
    } finally {
      await consumer.shutdown();
    }
    return '300 s made 3 s';
  },
  // A listener gets everything, and what it could not handle once more.
  async push() {
    const bodies = Array.from({ length: 20 }, (_, n) => 'p' + n);
    await send('push', bodies);
    const attempts = new Map();
    const got = new Set();
    let done;
    const all = new Promise((resolve) => { done = resolve; });
    const consumer = new PushConsumer({
      endpoints, requestTimeout, logger, namespace: '', consumerGroup: group + 'push', subscriptions: new Map([[topic, 'push']]),
      messageListener: {
        async consume(message) {
          const body = message.body.toString();
          attempts.set(body, (attempts.get(body) ?? 0) + 1);
          if (body === 'p5' && attempts.get(body) === 1) return ConsumeResult.FAILURE;
          got.add(body);
          if (got.size === 20) done(true);
          return ConsumeResult.SUCCESS;
        },
      },
    });
    await consumer.startup();
    try {
      const timer = new Promise((resolve) => { setTimeout(resolve, PATIENCE, false); });
      check(await Promise.race([all, timer]), `only ${got.size} of 20`);
      check(attempts.get('p5') === 2, `p5 came ${attempts.get('p5')} times`);
    } finally {
      await consumer.shutdown();
    }
    return '20 pushed, 1 twice';
  },
};

(async () => {
  let failed = false;
  for (const name of wanted.length ? wanted : Object.keys(scenarios)) {
    const at = Date.now();
    try {
      const note = await scenarios[name]();
      console.log(`PASS js_${name} ${Date.now() - at} ${note}`);
    } catch (error) {
      failed = true;
      console.error(error);
      console.log(`FAIL js_${name} ${Date.now() - at} ${String(error).slice(0, 300).replaceAll('\n', ' ')}`);
    }
  }
  // The client leaves timers behind.
  process.exit(failed ? 1 : 0);
})();
