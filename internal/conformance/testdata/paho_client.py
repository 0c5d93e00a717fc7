"""A round trip with the Python client of Eclipse Paho: everything that is
published comes back, in every QoS, once and in order for each QoS.

usage: paho_client.py VERSION TRANSPORT HOST PORT CAFILE|-
"""

import sys
import threading

import paho.mqtt.client as mqtt

version, transport, host, port, cafile = sys.argv[1:6]
protocol = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
COUNT = 20
topic = "python/%s/%s/%s" % (version, transport, port)
got = {0: [], 1: [], 2: []}
done, subscribed = threading.Event(), threading.Event()
problems = []


def on_connect(client, userdata, flags, rc, properties=None):
    if int(rc if isinstance(rc, int) else rc.value) != 0:
        problems.append("refused: %s" % rc)
        done.set()
        return
    client.subscribe(topic + "/#", qos=2)


def on_message(client, userdata, message):
    got[message.qos].append(int(message.payload))
    if sum(len(x) for x in got.values()) >= 3 * COUNT:
        done.set()


if protocol == mqtt.MQTTv5:
    client = mqtt.Client("python-" + topic.replace("/", "-"), protocol=protocol, transport=transport)
else:
    client = mqtt.Client("python-" + topic.replace("/", "-"), clean_session=True, protocol=protocol, transport=transport)
client.on_connect = on_connect
client.on_message = on_message
client.on_subscribe = lambda *args: subscribed.set()
if cafile != "-":
    client.tls_set(cafile)
if transport == "websockets":
    client.ws_set_options(path="/mqtt")
client.connect(host, int(port), keepalive=30)
client.loop_start()
if not subscribed.wait(20):
    problems.append("no SUBACK")
waiting = []
for i in range(COUNT):
    for qos in range(3):
        waiting.append(client.publish("%s/%d" % (topic, qos), str(i), qos=qos))
for info in waiting:
    info.wait_for_publish()
done.wait(20)
client.disconnect()
client.loop_stop()
for qos, numbers in got.items():
    if numbers != list(range(COUNT)):
        problems.append("QoS %d: %s" % (qos, numbers))
print("; ".join(problems) or "ok")
sys.exit(1 if problems else 0)
