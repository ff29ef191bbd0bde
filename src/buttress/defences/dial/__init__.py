"""DIAL: features that do not tell clean from adversarial inputs."""
