"""Built-in search spaces, one TOML file each: what may vary."""
