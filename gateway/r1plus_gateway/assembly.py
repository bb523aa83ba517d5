"""The one file of the gateway that imports add-ons. One that is not installed is left out."""

from r1plus_gateway.http.add_ons import AddOnRunner, run_without_add_on


def find_add_on() -> AddOnRunner:
    """Return the assistant with the helpers that the environment names; without that add-on, nothing."""
    try:
        from r1plus_assistant.environment import read_assistant
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "r1plus_assistant":
            raise
        return run_without_add_on
    return read_assistant().run
