-- What wrk sends: Stripe webhooks of about 2 KB, each new, each signed.
--
--   wrk -t1 -c64 -d3s -s webhooks.lua URL -- RUN SECRET
--
-- RUN makes the ids of two runs differ. An id is the start of an HMAC over RUN and a counter, so ids fall anywhere in
-- an index. LuaJIT's FFI lets OpenSSL do the hashing. The last line printed is one JSON object (times in milliseconds).

local ffi = require("ffi")
ffi.cdef([[
void *EVP_sha256(void);
unsigned char *HMAC(void *hash, const char *key, int key_size, const char *text, size_t text_size,
                    unsigned char *digest, unsigned int *digest_size);
]])
local openssl = ffi.load("libcrypto.so.3")
local sha256, digest = openssl.EVP_sha256(), ffi.new("unsigned char[32]")

local hex_of = {}
for byte = 0, 255 do
  hex_of[byte] = string.format("%02x", byte)
end

local function hmac_hex(key, text, bytes)
  openssl.HMAC(sha256, key, #key, text, #text, digest, nil)
  local hex = {}
  for at = 1, bytes do
    hex[at] = hex_of[digest[at - 1]]
  end
  return table.concat(hex)
end

local HEAD = '{"id":"evt_'
local MIDDLE = '","object":"event","api_version":"2025-03-31.basil","type":"invoice.paid","livemode":false,'
  .. '"pending_webhooks":1,"request":{"id":"req_bench","idempotency_key":null},"created":'
local OBJECT = ',"data":{"object":{"id":"in_'
local lines = {}
for number = 1, 6 do
  lines[number] = string.format(
    '{"id":"il_%04d","object":"line_item","amount":%d,"currency":"eur","description":"Seats on the plan, part %d of '
      .. 'the month, as agreed","discountable":true,"livemode":false,"metadata":{"order":"%05d"},"proration":false,'
      .. '"quantity":%d,"type":"subscription"}',
    number, number * 1250, number, number * 7919, number
  )
end
local TAIL = '","object":"invoice","account_country":"FR","amount_due":26250,"amount_paid":26250,"attempt_count":1,'
  .. '"billing_reason":"subscription_cycle","currency":"eur","customer":"cus_bench","status":"paid","lines":'
  .. '{"object":"list","has_more":false,"data":[' .. table.concat(lines, ",") .. "]}}}}"

local run, secret, sent, head, now

function init(arguments)
  run, secret, sent, now = arguments[1], arguments[2], 0, os.time()
  head = table.concat({
    "POST ", wrk.path, " HTTP/1.1\r\nHost: ", wrk.host,
    "\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\nAccept: */*; q=0.5, application/xml",
    "\r\nCache-Control: no-cache\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ",
  })
end

function request()
  sent = sent + 1
  if sent % 256 == 0 then
    now = os.time()
  end
  local id = hmac_hex(run, tostring(sent), 12)
  local body = table.concat({ HEAD, id, MIDDLE, now, OBJECT, id, TAIL })
  local signature = hmac_hex(secret, now .. "." .. body, 32)
  return table.concat({ head, #body, "\r\nStripe-Signature: t=", now, ",v1=", signature, "\r\n\r\n", body })
end

function done(summary, latency, _)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  print(string.format(
    '{"answers":%d,"not_2xx":%d,"broken":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f}',
    summary.requests, errors.status, broken, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  ))
end
