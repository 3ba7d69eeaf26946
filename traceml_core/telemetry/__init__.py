"""What travels from ranks to the aggregator: facts and messages."""
