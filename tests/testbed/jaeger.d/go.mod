// Builds Jaeger from its module. The checksums are those that the module itself comes with.
module traced-broker/testbed/jaeger

go 1.25.0

require github.com/jaegertracing/jaeger VERSION

// A storage that is compiled in, though not used here, has its Kafka client's tests from a version whose module is no longer
// served under its old name.
replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0
