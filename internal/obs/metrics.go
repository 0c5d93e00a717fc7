package obs

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is a set of metrics under one namespace. Its methods are safe for
// concurrent use.
type Metrics struct {
	namespace string
	registry  *prometheus.Registry
}

// NewMetrics makes a set whose names begin with namespace and an underscore. It
// holds the figures of the Go runtime and of the process, and
// <namespace>_build_info.
func NewMetrics(namespace string) *Metrics {
	m := &Metrics{namespace: namespace, registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	b := Version()
	m.Register(func(e *Emit) {
		e.Gauge("build_info", "The build, as labels; always 1.", 1, "version", b.Version, "revision", b.Revision, "goversion", b.Go)
	})
	return m
}

// Register adds a source: collect is called once per scrape, from any
// goroutine, and hands its figures to the Emit, which it must not keep. The
// same name may come several times with other values of the same labels.
func (m *Metrics) Register(collect func(*Emit)) {
	m.registry.MustRegister(&source{namespace: m.namespace, collect: collect})
}

// Handler answers scrapes. A source that says something impossible costs its
// own figures, not the scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4})
}

// Gatherer gives what a scrape would, for tests.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// source is a collector of what a snapshot says. It describes nothing up
// front: label values come and go with the snapshot.
type source struct {
	namespace string
	collect   func(*Emit)
}

func (*source) Describe(chan<- *prometheus.Desc) {}

func (s *source) Collect(out chan<- prometheus.Metric) {
	s.collect(&Emit{namespace: s.namespace, out: out})
}

// Emit takes the figures of one scrape.
type Emit struct {
	namespace string
	out       chan<- prometheus.Metric
}

// Counter gives a figure that only grows while the process lives; its name ends
// in "_total". labels are names and values in turn.
func (e *Emit) Counter(name, help string, value float64, labels ...string) {
	e.emit(prometheus.CounterValue, name, help, value, labels)
}

// Gauge gives a figure that goes up and down, in base units (seconds, bytes).
// labels are names and values in turn.
func (e *Emit) Gauge(name, help string, value float64, labels ...string) {
	e.emit(prometheus.GaugeValue, name, help, value, labels)
}

func (e *Emit) emit(kind prometheus.ValueType, name, help string, value float64, labels []string) {
	if len(labels)%2 != 0 {
		panic(fmt.Sprintf("obs: metric %s has a label without a value", name))
	}
	names, values := make([]string, 0, len(labels)/2), make([]string, 0, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	desc := prometheus.NewDesc(e.namespace+"_"+name, help, names, nil)
	metric, err := prometheus.NewConstMetric(desc, kind, value, values...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(desc, err)
	}
	e.out <- metric
}

// Bool is 1 for true, for gauges of states.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
