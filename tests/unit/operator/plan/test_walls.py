"""What a serving pod may reach: names, and its own deployment's pods at the port that the Service leads to."""

from r1plus_contract import names
from support.plan.world import World


def test_a_pod_reaches_names_and_the_port_of_its_own_deployment_and_nothing_else() -> None:
    world = World({"tier": "full"})
    world.bring_up()
    dns, own = world.one("NetworkPolicy", "credit")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert own == {
        "to": [{"podSelector": {"matchLabels": {names.LABEL_DEPLOYMENT: "credit"}}}],
        "ports": [{"protocol": "TCP", "port": names.PORT_GRPC}],
    }
    settings = world.accuracy_settings()
    assert settings["service"] == "credit.team.svc:8001"
    assert world.status["endpoint"] == settings["service"]
