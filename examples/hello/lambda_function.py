"""The smallest function: no dependencies, no configuration."""


def lambda_handler(event, context):
    name = event.get("name", "world")
    return {"statusCode": 200, "body": f"hello, {name}"}
