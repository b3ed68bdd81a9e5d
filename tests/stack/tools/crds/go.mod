module otel-quantmon.test/crds

go 1.26

require (
	github.com/kedacore/keda/v2 v2.18.1
	github.com/open-telemetry/opentelemetry-operator v0.136.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
