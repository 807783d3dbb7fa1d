//! The table of all metric families. `docs/reference/metrics.md` is generated from it.

use super::family::{
    CounterFamily as Counter, Family, GaugeFamily as Gauge, HistogramFamily as Histogram,
    MetricKind, MetricUnit,
};

/// Upper bounds of the buckets of detection windows, gaps and probes.
pub const GAP_BOUNDS_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of the buckets of requests. Whole microseconds, so that a worker compares integers.
pub const REQUEST_BOUNDS_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

const REQUEST_BOUNDS_SECONDS: [f64; REQUEST_BOUNDS_US.len()] = to_seconds(REQUEST_BOUNDS_US);

const fn to_seconds<const N: usize>(microseconds: [u64; N]) -> [f64; N] {
    let mut seconds = [0.0; N];
    let mut index = 0;
    while index < N {
        seconds[index] = microseconds[index] as f64 / 1e6;
        index += 1;
    }
    seconds
}

/// Declares the table, and one typed constant for each row:
/// `Kind CONSTANT "name" [labels] Unit (bounds)? "help";`.
macro_rules! families {
    ($($kind:ident $constant:ident $name:literal [$($label:literal),*] $unit:ident
        $(($bounds:ident))? $help:literal;)*) => {
        const FAMILIES: &[Family] = &[$(Family {
            name: $name,
            kind: MetricKind::$kind,
            unit: MetricUnit::$unit,
            labels: &[$($label),*],
            help: $help,
            bounds: optional_bounds(&[$(&$bounds)?]),
        }),*];
        $(
            #[doc = $help]
            pub const $constant: $kind<{ <[&str]>::len(&[$($label),*]) }> = $kind::named(FAMILIES, $name);
        )*
    };
}

const fn optional_bounds(bounds: &[&'static [f64]]) -> &'static [f64] {
    match bounds {
        [bounds] => bounds,
        _ => &[],
    }
}

/// All families, in the order of the page.
pub const fn families() -> &'static [Family] {
    FAMILIES
}

families! {
    Counter REQUESTS "gapless_requests_total" ["pool", "code"] Count
        "Requests answered, by class of status.";
    Counter OWN_RESPONSES "gapless_own_responses_total" ["pool", "reason"] Count
        "Error responses that the proxy made itself, by reason.";
    Histogram REQUEST_DURATION "gapless_request_duration_seconds" ["pool"] Seconds
        (REQUEST_BOUNDS_SECONDS) "Time from the request's head to the response's head.";
    Counter RETRIES "gapless_resends_total" ["pool"] Count
        "Requests sent to another endpoint, hedges included.";
    Counter HEDGES "gapless_hedges_total" ["pool"] Count
        "Requests sent to a second endpoint while the first one was silent.";
    Counter UNATTRIBUTED_FAILURES "gapless_unattributed_failures_total" ["pool"] Count
        "Failed attempts that are no evidence, because requests like theirs fail elsewhere too.";
    Counter RESCUES "gapless_rescued_total" ["pool"] Count
        "Requests that met a failure and were answered well by another endpoint.";
    Counter FALLBACKS "gapless_fallbacks_total" ["pool"] Count
        "Requests to this pool that their route's fallback answered.";
    Counter MIRRORED "gapless_mirrored_total" ["pool"] Count
        "Copies of requests sent to this pool.";
    Counter MIRRORS_DROPPED "gapless_mirrors_dropped_total" ["pool"] Count
        "Copies of requests not sent to this pool because too many were in flight.";
    Counter BREAKER_REJECTIONS "gapless_breaker_rejections_total" ["pool", "scope", "limit"] Count
        "Times that a limit kept a request from an endpoint or the pool.";
    Counter AFFINITY "gapless_affinity_total" ["pool", "outcome"] Count
        "Requests to pools with cookie affinity, by the outcome for the cookie.";
    Counter RATE_LIMITED "gapless_rate_limited_total" ["route"] Count
        "Requests refused because they exceeded the route's rate.";

    Gauge CLIENT_CONNECTIONS "gapless_client_connections" [] Count
        "Open client connections.";
    Counter CLIENT_CONNECTIONS_REFUSED "gapless_client_connections_refused_total" [] Count
        "Client connections refused because of `limits.connections`.";
    Counter CLIENT_CONNECTIONS_CLOSED "gapless_client_connections_closed_total" ["reason"] Count
        "Client connections that the proxy closed because of a limit, by reason.";
    Counter ADMIN_CONNECTIONS_DISPLACED "gapless_admin_connections_displaced_total" ["listener"] Count
        "Connections to the admin or status listener that made room for another.";
    Counter ADMIN_REFUSALS "gapless_admin_refusals_total" ["reason"] Count
        "Requests to the admin listener with a wrong host, origin or token.";
    Counter TLS_HANDSHAKES "gapless_tls_handshakes_total" ["result"] Count
        "TLS handshakes with clients, by result.";
    Counter PROXY_PROTOCOL_REFUSED "gapless_proxy_protocol_refused_total" [] Count
        "Client connections refused because of a missing, bad or untrusted PROXY header.";
    Gauge DESCRIPTORS "gapless_descriptors" [] Count
        "Descriptors of connections from clients and to endpoints.";
    Gauge DESCRIPTORS_LIMIT "gapless_descriptors_limit" [] Count
        "Limit of these descriptors; the rest is reserved for probes and the admin listener.";
    Gauge MEMORY "gapless_memory_bytes" [] Bytes
        "Resident memory of the process.";
    Gauge MEMORY_LIMIT "gapless_memory_limit_bytes" [] Bytes
        "Memory limit in bytes.";
    Gauge MEMORY_PRESSURE "gapless_memory_pressure" [] Level
        "Reaction to memory use: 0 none, 1 closes idle connections, 2 refuses requests, 3 accepts none.";
    Counter OVERLOAD_REFUSALS "gapless_overload_refusals_total" [] Count
        "Requests refused because memory is short.";

    Gauge ENDPOINT_UP "gapless_endpoint_up" ["pool", "zone", "endpoint"] Flag
        "Whether the endpoint's health allows it to serve.";
    Gauge ENDPOINT_DRAINED "gapless_endpoint_drained" ["pool", "zone", "endpoint"] Flag
        "Whether an operator's order keeps requests from the endpoint.";
    Gauge ZONE_UP "gapless_zone_up" ["pool", "zone"] Flag
        "Whether the verdict on the zone as a whole is up.";
    Counter ZONE_VERDICTS "gapless_zone_verdicts_total" ["pool", "zone"] Count
        "Times that the zone as a whole went down.";
    Gauge POOL_PANIC "gapless_pool_panic" ["pool"] Flag
        "Whether nothing in the pool is healthy, so that traffic goes to all of it.";
    Counter POOL_PANICS "gapless_pool_panics_total" ["pool"] Count
        "Times that the pool entered panic.";
    Gauge POOL_DIVERGENCE "gapless_pool_divergence" ["pool"] Flag
        "Whether probes fail in much of the pool while its traffic succeeds.";
    Counter DIVERGENCES "gapless_divergences_total" ["pool"] Count
        "Times that traffic to an endpoint failed while its probes passed.";
    Gauge POOL_DOWN "gapless_pool_down" ["pool"] Count
        "Endpoints whose verdict is down.";
    Gauge POOL_DRAINED "gapless_pool_drained" ["pool"] Count
        "Endpoints that an operator's order keeps requests from.";
    Gauge POOL_EVICT_LIMIT "gapless_pool_evict_limit" ["pool"] Count
        "Endpoints that may be down at once; further verdicts are withheld.";
    Counter VERDICTS_WITHHELD "gapless_verdicts_withheld_total" ["pool", "why"] Count
        "Verdicts down that were withheld so that the endpoint stays in service, by reason.";
    Counter REGION_ORDER_CHANGES "gapless_region_order_changes_total" ["pool"] Count
        "Changes of the order of regions by measured latency.";

    Counter PROBES "gapless_probes_total" ["pool", "outcome"] Count
        "Probes by outcome: pass, degraded, void, or the class of the failure.";
    Histogram PROBE_DURATION "gapless_probe_duration_seconds" ["pool"] Seconds
        (GAP_BOUNDS_SECONDS) "Latency of probes that were answered.";
    Gauge PROBE_PERIOD "gapless_probe_period_seconds" ["pool"] Seconds
        "Achieved period of probes of endpoints that are up, start to start.";
    Gauge PROBE_STRETCH "gapless_probe_stretch" [] Ratio
        "Factor by which the budget `probes.per_second` lengthens the periods of probes.";
    Gauge BLIND "gapless_blind" [] Flag
        "Whether probes end without evidence because the process lacks resources.";

    Counter INCIDENTS "gapless_incidents_total" ["pool", "zone", "class"] Count
        "Incidents that began, by class of failure.";
    Histogram DETECTION "gapless_detection_seconds" ["pool", "zone", "class"] Seconds
        (GAP_BOUNDS_SECONDS) "Time from an incident's onset to its verdict.";
    Histogram GAP "gapless_gap_seconds" ["pool", "zone", "class"] Seconds
        (GAP_BOUNDS_SECONDS) "Time from an incident's onset to the last failure that a client saw.";
    Counter INCIDENT_REQUESTS "gapless_incident_requests_total" ["pool", "zone", "outcome"] Count
        "Requests that met an incident, by outcome.";
    Gauge LEDGER_INCIDENTS "gapless_ledger_incidents" [] Count
        "Incidents in the ledger.";
    Gauge LEDGER_DURABLE "gapless_ledger_durable" [] Flag
        "Whether the ledger is written to disk.";
    Counter LEDGER_DROPPED "gapless_ledger_notes_dropped_total" [] Count
        "Notes for the ledger dropped because its queue was full.";
    Counter LEDGER_WRITE_FAILURES "gapless_ledger_write_failures_total" [] Count
        "Writes of the ledger that failed.";

    Gauge SLO_OBJECTIVE "gapless_slo_objective_ratio" ["objective", "scope", "name", "pool"] Ratio
        "Target share of good requests.";
    Gauge SLO_GOOD "gapless_slo_good_ratio" ["objective", "scope", "name", "pool", "window"] Ratio
        "Measured share of good requests.";
    Gauge SLO_REQUESTS "gapless_slo_requests" ["objective", "scope", "name", "pool", "window"] Count
        "Requests from which the share of good ones is measured.";
    Gauge SLO_BUDGET_LEFT "gapless_slo_budget_left_ratio"
        ["objective", "scope", "name", "pool", "window"] Ratio
        "Share of the error budget that is left: 1 is all of it, below 0 it is overdrawn.";
    Gauge SLO_BURN_RATE "gapless_slo_burn_rate"
        ["objective", "scope", "name", "pool", "window"] Ratio
        "Speed at which the error budget is used up; 1 uses it up exactly at the end of its period.";
    Gauge SLO_ALERT "gapless_slo_alert" ["objective", "scope", "name", "pool", "alert"] Flag
        "Whether the burn rate exceeds the alert's threshold in both of its windows.";

    Gauge ORDERS "gapless_orders" ["act", "source"] Count
        "Orders of operators that are in force.";
    Counter ORDER_CHANGES "gapless_orders_total" ["act", "fate"] Count
        "Changes of operators' orders, by act and kind of change.";
    Gauge ORDERS_DURABLE "gapless_orders_durable" [] Flag
        "Whether orders survive a restart.";
    Counter ORDERS_WRITE_FAILURES "gapless_orders_write_failures_total" [] Count
        "Writes of orders that failed.";

    Gauge DRILL_ACTIVE "gapless_drill_active" [] Flag
        "Whether a drill is running.";
    Counter DRILLS "gapless_drills_total" ["outcome"] Count
        "Finished drills, by outcome.";
    Gauge DRILL_LAST_OUTCOME "gapless_drill_last_outcome" ["zone", "outcome"] Flag
        "1 for the outcome of the zone's last drill, 0 for the others.";
    Gauge DRILL_LAST_END "gapless_drill_last_timestamp_seconds" ["zone"] UnixSeconds
        "Time at which the zone's last drill ended.";
    Gauge DRILL_LAST_SUCCESS "gapless_drill_last_success_timestamp_seconds" ["zone"] UnixSeconds
        "Time at which the zone's last successful drill ended.";
    Gauge DRILL_LAST_AGE "gapless_drill_last_age_seconds" ["zone"] Seconds
        "Time since the zone's last drill ended.";
    Gauge DRILL_LAST_DETECTION "gapless_drill_last_detection_seconds" ["zone"] Seconds
        "Detection window that the zone's last drill measured.";
    Gauge DRILL_LAST_GAP "gapless_drill_last_gap_seconds" ["zone"] Seconds
        "Failover gap that the zone's last drill measured.";

    Counter DNS_LOOKUPS "gapless_dns_lookups_total" ["record", "result"] Count
        "Lookups of endpoints' names, by type of record and result.";
    Histogram DNS_LOOKUP_DURATION "gapless_dns_lookup_duration_seconds" ["record"] Seconds
        (GAP_BOUNDS_SECONDS) "Duration of lookups.";
    Gauge DNS_ENDPOINTS "gapless_dns_endpoints" ["pool", "zone", "name"] Count
        "Endpoints that a DNS name resolves to.";
    Gauge DNS_ENDPOINTS_KEPT "gapless_dns_endpoints_kept" ["pool", "zone", "name"] Count
        "Endpoints of a DNS name that are kept although DNS no longer lists them.";
    Gauge DNS_ANSWER_AGE "gapless_dns_answer_age_seconds" ["pool", "zone", "name"] Seconds
        "Age of the last good DNS answer for a name.";
    Gauge DNS_FAILURES_IN_A_ROW "gapless_dns_failures_in_a_row" ["pool", "zone", "name"] Count
        "Consecutive failed lookups of a DNS name.";

    Counter CONFIG_RELOADS "gapless_config_reloads_total" ["result"] Count
        "Reloads of the configuration, by result.";
    Gauge CONFIG_LAST_RELOAD_OK "gapless_config_last_reload_ok" [] Flag
        "Whether the last reload of the configuration succeeded.";
    Counter UPGRADES "gapless_upgrades_total" ["result"] Count
        "Upgrades in place: taken over by this process (ok), or given up by it (failed).";
    Gauge LAST_UPGRADE_OK "gapless_last_upgrade_ok" [] Flag
        "Whether the last upgrade in place succeeded.";
    Gauge SNAPSHOT_VERSION "gapless_snapshot_version" [] Count
        "Version of the snapshot that the workers steer by.";
    Gauge CONTROL_LAG "gapless_control_lag_seconds" [] Seconds
        "Delay of the control thread's last wake-up.";
    Counter REPORTS_DROPPED "gapless_reports_dropped_total" [] Count
        "Failures that workers could not report because the queue to control was full.";
    Counter LOG_LINES_DROPPED "gapless_log_lines_dropped_total" [] Count
        "Lines of the log dropped because their reader was too slow.";
    Counter ACCESS_LOG_LINES_DROPPED "gapless_access_log_lines_dropped_total" [] Count
        "Lines of the access log dropped because their reader was too slow or a write failed.";
    Counter OTLP_SPANS_EXPORTED "gapless_otlp_spans_exported_total" [] Count
        "Spans that the collector accepted; only in builds with the feature `otlp`.";
    Counter OTLP_SPANS_DROPPED "gapless_otlp_spans_dropped_total" ["why"] Count
        "Spans that were lost, by reason; only in builds with the feature `otlp`.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = BTreeSet::new();
        for family in families() {
            let Family { name, kind, unit, labels, help, bounds } = *family;
            assert!(names.insert(name), "{name} is declared twice");
            assert!(name.starts_with("gapless_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == MetricKind::Counter, "{name}");
            assert_eq!(!bounds.is_empty(), kind == MetricKind::Histogram, "{name}");
            assert!(bounds.is_sorted(), "{name}");
            let is_time = matches!(unit, MetricUnit::Seconds | MetricUnit::UnixSeconds);
            assert_eq!(name.ends_with("_seconds"), is_time, "{name}");
            assert_eq!(name.ends_with("_bytes"), unit == MetricUnit::Bytes, "{name}");
            assert!(!labels.contains(&"le") && !help.contains(['\\', '\n']), "{name}");
            assert!(help.ends_with('.') && help.len() > 16, "{name}: {help}");
        }
    }
}
