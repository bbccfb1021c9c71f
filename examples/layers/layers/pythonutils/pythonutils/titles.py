"""Titles of reports."""


def headline(text):
    return text.strip().capitalize()
