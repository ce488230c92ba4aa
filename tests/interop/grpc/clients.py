"""Scenarios of the Python gRPC client: clients.py HOST:PORT TOPIC FIFO_TOPIC GROUP FIFO_GROUP [NAME...]

Prints `PASS|FAIL py_NAME ms note` for each. The topics exist; FIFO_GROUP consumes in order.
"""
import os
import sys
import threading
import time
import traceback

from rocketmq.v5.client import ClientConfiguration, Credentials
from rocketmq.v5.consumer import PushConsumer, SimpleConsumer
from rocketmq.v5.consumer.push import ConsumeResult, MessageListener
from rocketmq.v5.exception import ClientException
from rocketmq.v5.model import FilterExpression, Message
from rocketmq.v5.producer import Producer

ENDPOINT, TOPIC, FIFO_TOPIC, GROUP, FIFO_GROUP = sys.argv[1:6]
CONFIG = ClientConfiguration(ENDPOINT, Credentials(), request_timeout=20)
PATIENCE = 90


def send(topic, tag, bodies, message_group=None):
    producer = Producer(CONFIG, [topic])
    producer.startup()
    try:
        for body in bodies:
            message = Message()
            message.topic, message.tag, message.body = topic, tag, body.encode()
            message.keys = "k-" + body
            if message_group:
                message.message_group = message_group
            assert producer.send(message).message_id
    finally:
        producer.shutdown()


def simple(name, tag):
    consumer = SimpleConsumer(CONFIG, GROUP + name, {TOPIC: FilterExpression(tag)}, await_duration=5)
    consumer.startup()
    return consumer


def receive(consumer, count, invisible):
    """Receives until there are `count` messages, as body -> message."""
    got, end = {}, time.time() + PATIENCE
    while len(got) < count and time.time() < end:
        try:
            messages = consumer.receive(16, invisible) or []
        except ClientException as error:
            # The proxy learns of a consumer a moment after it has started, and of a broker that is new likewise.
            print(error, file=sys.stderr)
            time.sleep(0.5)
            continue
        for message in messages:
            got[message.body.decode()] = message
    assert len(got) == count, f"{sorted(got)} of {count}"
    return got


def ack():
    """What is acknowledged does not come again, what is not does, as its second delivery."""
    bodies = [f"a{n}" for n in range(10)]
    send(TOPIC, "ack", bodies)
    consumer = simple("ack", "ack")
    try:
        got = receive(consumer, 10, 10)
        assert sorted(got) == bodies
        assert all(message.tag == "ack" and message.delivery_attempt == 1 for message in got.values())
        assert list(got["a3"].keys) == ["k-a3"]
        for body, message in got.items():
            if body != "a7":
                consumer.ack(message)
        again = receive(consumer, 1, 30)
        assert list(again) == ["a7"] and again["a7"].delivery_attempt == 2, again
        assert again["a7"].topic == TOPIC
        consumer.ack(again["a7"])
        assert not consumer.receive(16, 10)
    finally:
        consumer.shutdown()
    return "10 received, 1 again"


def change():
    """A message comes again when its invisible time is made short, and is acknowledged by its newest handle."""
    send(TOPIC, "change", ["c0", "c1"])
    consumer = simple("change", "change")
    try:
        got = receive(consumer, 2, 300)
        consumer.change_invisible_duration(got["c0"], 3)
        consumer.ack(got["c1"])
        again = receive(consumer, 1, 30)
        assert list(again) == ["c0"] and again["c0"].delivery_attempt == 2
        # The handle of the answer counts from now on.
        consumer.change_invisible_duration(again["c0"], 60)
        consumer.ack(again["c0"])
        assert not consumer.receive(16, 10)
    finally:
        consumer.shutdown()
    return "300 s made 3 s"


class Listener(MessageListener):
    def __init__(self, count, fail=()):
        self.bodies, self.attempts, self.fail, self.count = [], {}, fail, count
        self.done, self.lock = threading.Event(), threading.Lock()

    def consume(self, message):
        body = message.body.decode()
        with self.lock:
            self.attempts[body] = self.attempts.get(body, 0) + 1
            if body in self.fail and self.attempts[body] == 1:
                return ConsumeResult.FAILURE
            self.bodies.append(body)
            if len(set(self.bodies)) == self.count:
                self.done.set()
        return ConsumeResult.SUCCESS


def push_all(group, topic, tag, listener):
    consumer = PushConsumer(CONFIG, group, listener, {topic: FilterExpression(tag)})
    consumer.startup()
    try:
        assert listener.done.wait(PATIENCE), sorted(set(listener.bodies))
    finally:
        consumer.shutdown()


def push():
    """A listener gets everything, and what it could not handle once more."""
    bodies = [f"p{n}" for n in range(20)]
    send(TOPIC, "push", bodies)
    listener = Listener(20, fail=("p5",))
    push_all(GROUP + "push", TOPIC, "push", listener)
    assert sorted(set(listener.bodies)) == sorted(bodies)
    assert listener.attempts["p5"] == 2, listener.attempts
    return "20 pushed, 1 twice"


def fifo():
    """Messages of one group of messages come in their order."""
    bodies = [f"f{n}" for n in range(12)]
    send(FIFO_TOPIC, "fifo", bodies, message_group="one")
    listener = Listener(12)
    push_all(FIFO_GROUP, FIFO_TOPIC, "*", listener)
    assert listener.bodies == bodies, listener.bodies
    return "12 in order"


def hold():
    """Takes five messages, acknowledges two, and leaves; `regain` is the other half."""
    send(TOPIC, "hold", [f"h{n}" for n in range(5)])
    consumer = simple("hold", "hold")
    try:
        got = receive(consumer, 5, 30)
        for body in ("h1", "h3"):
            consumer.ack(got[body])
    finally:
        consumer.shutdown()
    return "5 popped, 2 acknowledged"


def regain():
    """What `hold` did not acknowledge comes again, and nothing else."""
    consumer = simple("hold", "hold")
    try:
        again = receive(consumer, 3, 60)
        assert sorted(again) == ["h0", "h2", "h4"], sorted(again)
        assert all(message.delivery_attempt == 2 for message in again.values())
        for message in again.values():
            consumer.ack(message)
        assert not consumer.receive(16, 10)
    finally:
        consumer.shutdown()
    return "3 came again"


SCENARIOS = {of.__name__: of for of in (ack, change, push, fifo, hold, regain)}
failed = False
for name in sys.argv[6:] or SCENARIOS:
    at = time.time()
    try:
        note, result = SCENARIOS[name](), "PASS"
    except BaseException as error:  # pylint: disable=broad-except
        traceback.print_exc()
        note, result, failed = f"{type(error).__name__}: {error}"[:300].replace("\n", " "), "FAIL", True
    print(f"{result} py_{name} {int((time.time() - at) * 1000)} {note}", flush=True)
# The client leaves threads behind.
sys.stdout.flush()


os._exit(1 if failed else 0)
