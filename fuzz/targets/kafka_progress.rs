#![no_main]

traced_broker_fuzz::target!(traced_broker_fuzz::kafka::fuzz::progress, PARSED);
