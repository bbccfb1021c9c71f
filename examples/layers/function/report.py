"""Renders a report; everything that it imports comes from layers."""

from dateutil import parser
from jinja2 import Template

from pythonutils import titles

REPORT = Template("{{ title }} ({{ day }}): {{ lines | length }} lines")


def handler(event, context):
    day = parser.isoparse(event["time"]).date().isoformat()
    return REPORT.render(title=titles.headline(event["title"]), day=day, lines=event["lines"])
