"""Sends a message made from a template."""

import os

import yaml

import slack

with open(os.path.join(os.path.dirname(__file__), "templates.yaml"), encoding="utf-8") as file:
    TEMPLATES = yaml.safe_load(file)


def handler(event, context):
    text = TEMPLATES[event["template"]].format(**event.get("values", {}))
    return slack.call("chat.postMessage", os.environ["SLACK_TOKEN"], channel=event["channel"], text=text)["ts"]
