//! The pure parts of the data-plane bench: parsers and statistics.

#[path = "../../benches/support/parse.rs"]
mod parse;
#[path = "../../benches/dataplane/stats.rs"]
mod stats;
#[path = "../../benches/support/table.rs"]
mod table;
#[path = "../../benches/support/template.rs"]
mod template;

use parse::{
    CoreTicks, LoadReport, ParsedResponseHead, Percentiles, h2load_report, parse_core_ticks,
    parse_parent_pid, parse_pss_bytes, parse_response_head, parse_schedstat_ns, wrk_report,
};
use stats::RangeSummary;
use template::fill_template;

const WRK_OUTPUT: &str = "Running 1s test @ http://127.0.0.1:9000/1k
  1 threads and 64 connections
Requests/sec:  51234.00
measured requests=51234 duration_us=1000100 bytes=60000000 connect=1 read=2 write=3 status=4 \
timeout=5 p50_us=610 p99_us=1200 p999_us=2400
";

#[test]
fn wrk_report_is_parsed_and_errors_are_summed() {
    let expected = LoadReport {
        requests: 51234,
        duration_us: 1_000_100,
        response_bytes: 60_000_000,
        errors: 15,
        latency: Some(Percentiles { p50_us: 610, p99_us: 1200, p999_us: 2400 }),
    };
    assert_eq!(wrk_report(WRK_OUTPUT), Some(expected));
}

#[test]
fn incomplete_wrk_report_is_rejected() {
    assert_eq!(wrk_report("unable to connect to 127.0.0.1:1"), None);
    assert_eq!(wrk_report(&WRK_OUTPUT.replace("timeout=5", "")), None);
    assert_eq!(wrk_report(&WRK_OUTPUT.replace("p999_us=2400", "p999_us=nan")), None);
}

const H2LOAD_OUTPUT: &str = "spawning thread #0: 8 total client(s). 3000 total requests
TLS Protocol: TLSv1.3
Cipher: TLS_AES_256_GCM_SHA384
Server Temp Key: X25519 253 bits
Application protocol: h2
progress: 100% done

finished in 250.00ms, 12000.00 req/s, 28.62MB/s
requests: 3000 total, 3000 started, 3000 done, 2990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 2990 2xx, 0 3xx, 0 4xx, 10 5xx
traffic: 3.01MB (3159776) total, 32.80KB (33584) headers (space savings 92.82%), 2.93MB (3072000) data
                     min         max         mean         sd        +/- sd
time for request:      360us     20.96ms      8.14ms      4.41ms    76.23%
";

#[test]
fn h2load_report_counts_unsuccessful_requests() {
    let expected = LoadReport {
        requests: 3000,
        duration_us: 250_000,
        response_bytes: 3_072_000,
        errors: 10,
        latency: None,
    };
    assert!((expected.requests_per_second() - 12_000.0).abs() < 1e-6);
    assert_eq!(h2load_report(H2LOAD_OUTPUT), Some(expected));
    let cut_short = H2LOAD_OUTPUT.replace("3000 done, 2990", "2800 done, 2790");
    let report = h2load_report(&cut_short).expect("a report");
    assert_eq!((report.requests, report.errors), (2800, 210));
}

#[test]
fn h2load_report_of_other_protocol_is_rejected() {
    assert_eq!(h2load_report(""), None);
    assert_eq!(h2load_report(&H2LOAD_OUTPUT.replace("protocol: h2", "protocol: http/1.1")), None);
    assert_eq!(h2load_report(&H2LOAD_OUTPUT.replace("TLSv1.3", "TLSv1.2")), None);
    assert_eq!(h2load_report(&H2LOAD_OUTPUT.replace("(3072000)", "(3.0MB)")), None);
}

#[test]
fn percentiles_use_the_nearest_rank() {
    assert_eq!(Percentiles::from_latencies(vec![]), None);
    let of_one = Percentiles { p50_us: 7, p99_us: 7, p999_us: 7 };
    assert_eq!(Percentiles::from_latencies(vec![7]), Some(of_one));
    let of_thousand = Percentiles { p50_us: 500, p99_us: 990, p999_us: 999 };
    assert_eq!(Percentiles::from_latencies((1..=1000).rev().collect()), Some(of_thousand));
}

#[test]
fn response_head_yields_response_length() {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-Length: 3\r\n\r\nno\n";
    let expected = ParsedResponseHead { status: 503, response_bytes: answer.len() };
    assert_eq!(parse_response_head(answer), Some(Ok(expected)));
    assert_eq!(parse_response_head(&answer[..40]), None);
    let unknown = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(matches!(parse_response_head(unknown), Some(Err(_))));
    assert!(matches!(parse_response_head(b"\x16\x03\x01"), Some(Err(_))));
}

#[test]
fn pss_bytes_are_parsed_from_smaps_rollup() {
    let rollup = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  9 kB\nPss:                 2048 kB\nPss_Dirty: 1 kB\n";
    assert_eq!(parse_pss_bytes(rollup), Some(2048 * 1024));
    assert_eq!(parse_pss_bytes(""), None);
}

#[test]
fn thread_cpu_time_is_parsed_from_schedstat() {
    assert_eq!(parse_schedstat_ns("123456789 54699 17\n"), Some(123_456_789));
    assert_eq!(parse_schedstat_ns(""), None);
}

#[test]
fn parent_pid_is_found_behind_name_with_brackets() {
    assert_eq!(parse_parent_pid("4242 (a) S 1 (x)) S 77 4242 4242 0 -1"), Some(77));
    assert_eq!(parse_parent_pid(""), None);
}

#[test]
fn core_utilisation_is_computed_from_proc_stat() {
    let stat = |idle: u64, user: u64| {
        format!(
            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\n\
                 cpu1 {user} 5 20 {idle} 10 1 2 3 4 4\ncpu10 7 7 7 7 7 7 7 7 7 7\nintr 1\n"
        )
    };
    let earlier = parse_core_ticks(&stat(100, 60), 1).expect("core 1 is there");
    assert_eq!(earlier, CoreTicks { busy: 91, total: 201 });
    let later = parse_core_ticks(&stat(125, 135), 1).expect("core 1 is there");
    assert!((later.busy_percent_since(earlier) - 75.0).abs() < 1e-9);
    assert!(later.busy_percent_since(later).abs() < 1e-9);
    assert_eq!(parse_core_ticks(&stat(1, 1), 2), None);
}

#[test]
fn summary_of_rounds_has_median_min_and_max() {
    assert_eq!(RangeSummary::from_values([]), None);
    assert_eq!(
        RangeSummary::from_values([3.0, 1.0, 2.0]),
        Some(RangeSummary { median: 2.0, min: 1.0, max: 3.0 })
    );
    let even = RangeSummary::from_values([4.0, 1.0, 2.0, 9.0]).expect("four rounds");
    assert_eq!(even, RangeSummary { median: 3.0, min: 1.0, max: 9.0 });
    assert_eq!(even.format(1), "3.0 (1.0–9.0)");
}

#[test]
fn template_fills_values_and_names_missing_ones() {
    let values = [("port", "80"), ("dir", "/x")];
    assert_eq!(fill_template("{{dir}}:{{port}} {{port}}{", &values), Ok("/x:80 80{".to_owned()));
    assert_eq!(fill_template("{{prot}}", &values), Err("nothing to put for {{prot}}".to_owned()));
    assert!(fill_template("{{port", &values).is_err());
}

#[test]
fn table_renders_as_markdown() {
    let rows = [vec!["keep-alive".to_owned(), "nginx".to_owned(), "9.5 (9–10)".to_owned()]];
    let expected = "\
| case       | proxy | CPU µs/request |
|------------|-------|---------------:|
| keep-alive | nginx |     9.5 (9–10) |
";
    assert_eq!(table::render(&["case", "proxy", "CPU µs/request"], &rows), expected);
}
