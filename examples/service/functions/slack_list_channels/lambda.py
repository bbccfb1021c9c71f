"""Lists the names of all channels."""

import os

import slack


def handler(event, context):
    channels = slack.call("conversations.list", os.environ["SLACK_TOKEN"])["channels"]
    return sorted(channel["name"] for channel in channels)
