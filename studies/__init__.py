"""Built-in studies, one TOML file each: what is asked."""
