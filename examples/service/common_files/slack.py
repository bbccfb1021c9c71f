"""The part of Slack's interface that both functions use."""

import requests

URL = "https://slack.com/api/"


def call(method, token, **arguments):
    response = requests.post(URL + method, headers={"Authorization": f"Bearer {token}"}, json=arguments, timeout=10)
    response.raise_for_status()
    answer = response.json()
    if not answer["ok"]:
        raise RuntimeError(f"{method}: {answer['error']}")
    return answer
