//! What an operator watches, in the format of Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdapterLabels {
    adapter: String,
    version: String,
}

/// Half a millisecond to sixteen seconds.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
}

/// Counters of one server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RouteLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    images: Family<AdapterLabels, Counter>,
    batch_images: Histogram,
    batch_requests: Histogram,
    waiting: Gauge,
    resident: Gauge,
    resident_bytes: Gauge<i64>,
    refused: Counter<u64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("inarch");
        let requests = Family::default();
        let seconds = Family::new_with_constructor(latency as fn() -> Histogram);
        let images = Family::default();
        let batch_images = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        let batch_requests = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        let (waiting, resident, resident_bytes) = (Gauge::default(), Gauge::default(), Gauge::default());
        let refused = Counter::default();
        registry.register("requests", "Answered requests", requests.clone());
        registry.register_with_unit("request", "Time from arrival to answer", Unit::Seconds, seconds.clone());
        registry.register("images", "Images classified or encoded", images.clone());
        registry.register("batch_images", "Images of a pass", batch_images.clone());
        registry.register("batch_requests", "Requests of a pass", batch_requests.clone());
        registry.register("waiting_images", "Images that wait", waiting.clone());
        registry.register("resident_adapters", "Adapters in memory", resident.clone());
        registry.register_with_unit("resident_adapters", "Memory of adapters", Unit::Bytes, resident_bytes.clone());
        registry.register("refused_busy", "Requests refused because too many waited", refused.clone());
        Self {
            registry,
            requests,
            seconds,
            images,
            batch_images,
            batch_requests,
            waiting,
            resident,
            resident_bytes,
            refused,
        }
    }

    /// An answered request.
    pub(crate) fn request(&self, route: &str, status: u16, took: Duration) {
        let labels = RouteLabels { route: route.into(), status };
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if status == 429 {
            self.refused.inc();
        }
    }

    /// Images that were asked about under an adapter.
    pub(crate) fn images(&self, adapter: &str, version: &str, count: usize) {
        let labels = AdapterLabels { adapter: adapter.into(), version: version.into() };
        self.images.get_or_create(&labels).inc_by(count as u64);
    }

    /// A pass of so many images from so many requests.
    pub(crate) fn batch(&self, images: usize, requests: usize) {
        self.batch_images.observe(images as f64);
        self.batch_requests.observe(requests as f64);
    }

    /// The page that Prometheus reads.
    pub(crate) fn page(&self, waiting: usize, resident: (u64, u64)) -> String {
        self.waiting.set(waiting as i64);
        self.resident.set(resident.0 as i64);
        self.resident_bytes.set(resident.1 as i64);
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}
