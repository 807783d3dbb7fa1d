//! The table of admin routes: requests are dispatched by it, and `docs/reference/api.md` is
//! generated from it.

use super::drills::DRILLS_PATH;
use super::orders::ORDERS_PATH;

/// What answers a request to the admin listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminResource {
    Health,
    Readiness,
    Metrics,
    Pools,
    Zones,
    Endpoints,
    Explain,
    Incidents,
    IncidentsCsv,
    WhatIf,
    Slo,
    Discovery,
    Config,
    Process,
    Status,
    Orders,
    Drills,
}

/// One path of the admin listener.
#[derive(Clone, Copy, Debug)]
pub struct AdminRoute {
    /// Methods besides HEAD, separated by commas.
    pub methods: &'static str,
    /// `{id}` stands for a number.
    pub path: &'static str,
    /// Keys of the query.
    pub query: &'static str,
    /// What the response holds.
    pub summary: &'static str,
    pub resource: AdminResource,
}

const fn get(
    path: &'static str,
    query: &'static str,
    summary: &'static str,
    resource: AdminResource,
) -> AdminRoute {
    AdminRoute { methods: "GET", path, query, summary, resource }
}

/// All routes. A path with `{id}` belongs to the collection above it.
pub const ADMIN_ROUTES: [AdminRoute; 20] = [
    get("/healthz", "", "200 while the process runs.", AdminResource::Health),
    get(
        "/readyz",
        "",
        "200, or 503 with the reason: stopping, no endpoint, blind probing, memory, late control.",
        AdminResource::Readiness,
    ),
    get("/metrics", "", "All metrics in the text format of Prometheus.", AdminResource::Metrics),
    get("/api/v1/pools", "", "Pools with counts, shares and panic.", AdminResource::Pools),
    get("/api/v1/zones", "", "Zones with verdicts, quorums and shares.", AdminResource::Zones),
    get(
        "/api/v1/endpoints",
        "",
        "Endpoints with states, reasons, evidence and counters.",
        AdminResource::Endpoints,
    ),
    get(
        "/api/v1/explain",
        "of, pool, format=json|text",
        "Why an endpoint, zone or region is in its state.",
        AdminResource::Explain,
    ),
    get(
        "/api/v1/incidents",
        "id, limit, pool, zone, region, class, since, until, format=json|csv|text",
        "Incidents of endpoints, joined to zones and regions.",
        AdminResource::Incidents,
    ),
    get(
        "/api/v1/incidents.csv",
        "as /api/v1/incidents",
        "The same as comma-separated values.",
        AdminResource::IncidentsCsv,
    ),
    get(
        "/api/v1/whatif",
        "lose (repeatable), format=json|text",
        "Where traffic would go; 409 if it would not fit.",
        AdminResource::WhatIf,
    ),
    get(
        "/api/v1/slo",
        "format=json|text",
        "Objectives, error budgets, burn rates.",
        AdminResource::Slo,
    ),
    get("/api/v1/discovery", "", "Names, their answers and lookups.", AdminResource::Discovery),
    get(
        "/api/v1/config",
        "",
        "The generation in force and the result of the last reload.",
        AdminResource::Config,
    ),
    get("/api/v1/process", "", "Process id, version, upgrades.", AdminResource::Process),
    get(
        "/api/v1/status",
        "format=json|text",
        "Pools, zones, endpoints, traffic and orders on one page.",
        AdminResource::Status,
    ),
    AdminRoute {
        methods: "GET, POST",
        path: ORDERS_PATH,
        query: "format=text",
        summary: "Orders in force. POST gives an order or a restoration.",
        resource: AdminResource::Orders,
    },
    AdminRoute {
        methods: "GET, DELETE",
        path: "/api/v1/orders/{id}",
        query: "format=text",
        summary: "One order. DELETE lifts it.",
        resource: AdminResource::Orders,
    },
    AdminRoute {
        methods: "GET, POST",
        path: DRILLS_PATH,
        query: "format=text",
        summary: "Drills. POST starts one.",
        resource: AdminResource::Drills,
    },
    AdminRoute {
        methods: "GET, DELETE",
        path: "/api/v1/drills/{id}",
        query: "format=text",
        summary: "One drill with its timeline. DELETE stops it.",
        resource: AdminResource::Drills,
    },
    get("/api/v1/drills/{id}.html", "", "The report of a drill as a page.", AdminResource::Drills),
];

/// The resource that answers `path`; everything below a collection belongs to the collection.
pub(super) fn find_resource(path: &str) -> Option<AdminResource> {
    let exact = ADMIN_ROUTES.iter().find(|route| route.path == path);
    let below = || {
        let collections =
            ADMIN_ROUTES.iter().filter(|route| [ORDERS_PATH, DRILLS_PATH].contains(&route.path));
        collections.into_iter().find(|route| path.starts_with(route.path))
    };
    exact.or_else(below).map(|route| route.resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_resources() {
        for route in ADMIN_ROUTES {
            let path = route.path.replace("{id}", "7");
            assert_eq!(find_resource(&path), Some(route.resource), "{path}");
        }
        assert_eq!(find_resource("/api/v1/nothing"), None);
        assert_eq!(find_resource("/healthz/"), None);
    }
}
