-- What wrk sends and what it prints. Arguments after `--`: method, body bytes, keep|close.
-- No `request` function: wrk then builds the request once, not per request.

function init(args)
  wrk.method = args[1]
  local body_bytes = tonumber(args[2])
  if body_bytes > 0 then
    wrk.body = string.rep("x", body_bytes)
  end
  if args[3] == "close" then
    wrk.headers["Connection"] = "close"
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    "measured requests=%d duration_us=%d bytes=%d connect=%d read=%d write=%d status=%d timeout=%d",
    summary.requests, summary.duration, summary.bytes,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
  io.write(string.format(" p50_us=%d p99_us=%d p999_us=%d\n",
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
