//! The pure parts of the data-plane bench: a bench that misreads its figures is worse than none.

#[path = "../benches/dataplane/parse.rs"]
mod parse;
#[path = "../benches/dataplane/stats.rs"]
mod stats;
#[path = "../benches/dataplane/table.rs"]
mod table;
#[path = "../benches/dataplane/template.rs"]
mod template;

use parse::{CoreTicks, WrkReport, core_ticks, parent_pid, schedstat_ns, wrk_report};
use stats::Summary;
use template::fill;

const WRK_OUTPUT: &str = "Running 1s test @ http://127.0.0.1:9000/1k
  1 threads and 64 connections
Requests/sec:  51234.00
measured requests=51234 duration_us=1000100 bytes=60000000 connect=1 read=2 write=3 status=4 \
timeout=5 p50_us=610 p99_us=1200 p999_us=2400
";

#[test]
fn reads_the_line_of_the_wrk_script_and_adds_up_errors() {
    let expected = WrkReport {
        requests: 51234,
        duration_us: 1_000_100,
        response_bytes: 60_000_000,
        errors: 15,
        p50_us: 610,
        p99_us: 1200,
        p999_us: 2400,
    };
    assert_eq!(wrk_report(WRK_OUTPUT), Some(expected));
}

#[test]
fn takes_no_incomplete_report_of_wrk() {
    assert_eq!(wrk_report("unable to connect to 127.0.0.1:1"), None);
    assert_eq!(wrk_report(&WRK_OUTPUT.replace("timeout=5", "")), None);
    assert_eq!(wrk_report(&WRK_OUTPUT.replace("p999_us=2400", "p999_us=nan")), None);
}

#[test]
fn reads_cpu_time_of_a_thread() {
    assert_eq!(schedstat_ns("123456789 54699 17\n"), Some(123_456_789));
    assert_eq!(schedstat_ns(""), None);
}

#[test]
fn finds_the_parent_behind_a_name_with_brackets_and_spaces() {
    assert_eq!(parent_pid("4242 (a) S 1 (x)) S 77 4242 4242 0 -1"), Some(77));
    assert_eq!(parent_pid(""), None);
}

#[test]
fn reads_how_busy_a_core_was() {
    let stat = |idle: u64, user: u64| {
        format!(
            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\n\
                 cpu1 {user} 5 20 {idle} 10 1 2 3 4 4\ncpu10 7 7 7 7 7 7 7 7 7 7\nintr 1\n"
        )
    };
    let earlier = core_ticks(&stat(100, 60), 1).expect("core 1 is there");
    assert_eq!(earlier, CoreTicks { busy: 91, total: 201 });
    let later = core_ticks(&stat(125, 135), 1).expect("core 1 is there");
    assert!((later.busy_percent_since(earlier) - 75.0).abs() < 1e-9);
    assert!(later.busy_percent_since(later).abs() < 1e-9);
    assert_eq!(core_ticks(&stat(1, 1), 2), None);
}

#[test]
fn sums_up_rounds() {
    assert_eq!(Summary::of([]), None);
    assert_eq!(Summary::of([3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
    let even = Summary::of([4.0, 1.0, 2.0, 9.0]).expect("four rounds");
    assert_eq!(even, Summary { median: 3.0, min: 1.0, max: 9.0 });
    assert_eq!(even.text(1), "3.0 (1.0–9.0)");
}

#[test]
fn fills_templates_and_names_what_is_missing() {
    let values = [("port", "80"), ("dir", "/x")];
    assert_eq!(fill("{{dir}}:{{port}} {{port}}{", &values), Ok("/x:80 80{".to_owned()));
    assert_eq!(fill("{{prot}}", &values), Err("nothing to put for {{prot}}".to_owned()));
    assert!(fill("{{port", &values).is_err());
}

#[test]
fn renders_a_markdown_table() {
    let rows = [vec!["keep-alive".to_owned(), "nginx".to_owned(), "9.5 (9–10)".to_owned()]];
    let expected = "\
| case       | proxy | CPU µs/request |
|------------|-------|---------------:|
| keep-alive | nginx |     9.5 (9–10) |
";
    assert_eq!(table::render(&["case", "proxy", "CPU µs/request"], &rows), expected);
}
