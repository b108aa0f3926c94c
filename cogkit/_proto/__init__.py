"""Messages of the wire, generated from protos/ by ``make protos``: do not edit."""
