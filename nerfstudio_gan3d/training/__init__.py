"""Pipeline, trainer, moving averages and distribution."""
