"""The APIs: a file each reads bodies into what is asked of the engine, and writes what comes of it."""
