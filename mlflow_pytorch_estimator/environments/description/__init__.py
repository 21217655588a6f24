"""What a user says of an environment, from all sources -> ``EnvironmentSpec``."""
