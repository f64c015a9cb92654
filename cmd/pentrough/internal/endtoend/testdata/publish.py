"""Publish commands as a back end would: pika, confirms, persistent, and every command again with the same message_id until the broker has
confirmed it.

usage: publish.py AMQP_URL EXCHANGE COUNT DEVICES FIRST_ADDRESS
"""
import ipaddress
import json
import sys
import time

import pika

url, exchange, count, devices, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
first = ipaddress.ip_address(first)


def connect():
    while True:
        try:
            connection = pika.BlockingConnection(pika.URLParameters(url))
            channel = connection.channel()
            channel.confirm_delivery()
            return channel
        except pika.exceptions.AMQPError:
            time.sleep(0.2)


channel, repeats = connect(), 0
for n in range(count):
    address = str(first + n % devices)
    properties = pika.BasicProperties(message_id="c-%06d" % n, delivery_mode=2, content_type="application/json")
    body = json.dumps({"device": address, "cmd": "set %d" % (n // devices)})
    while True:
        try:
            channel.basic_publish(exchange, address, body, properties, mandatory=True)
            break
        except pika.exceptions.AMQPError:
            repeats += 1
            channel = connect()
    if (n + 1) % 1000 == 0:
        print("published %d" % (n + 1), flush=True)
print("confirmed %d, tried again %d" % (count, repeats), flush=True)
