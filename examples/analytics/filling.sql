-- Which filesystem is full within a week, if it goes on as in the last seven days?
--
-- A straight line through a week of readings, with its own present value. What goes up and down is left out: a line
-- that explains less than half of the movement (r2) is no trend, and neither are less than two days of readings.
WITH recent AS (
    SELECT *, max(observed_at) OVER () AS today FROM filesystems
    WHERE observed_at > (SELECT max(observed_at) FROM filesystems) - INTERVAL 7 DAYS
),
trend AS (
    SELECT
        cluster, namespace, name, uid, mount_point,
        regr_slope(used_bytes, epoch(observed_at)) AS bytes_per_second,
        regr_r2(used_bytes, epoch(observed_at)) AS r2,
        any_value(today) AS today
    FROM recent
    GROUP BY ALL
    HAVING max(observed_at) - min(observed_at) >= INTERVAL 2 DAYS
)
SELECT
    cluster, namespace, name, mount_point,
    round(100 * used_bytes / total_bytes, 1) AS used_percent,
    round(bytes_per_second * 86400 / 1024 ** 3, 2) AS gib_per_day,
    round((total_bytes - used_bytes) / bytes_per_second / 86400, 1) AS full_in_days,
    round(r2, 2) AS r2
FROM trend
JOIN filesystems_now USING (cluster, namespace, name, uid, mount_point)
WHERE bytes_per_second > 0 AND r2 >= 0.5 AND (total_bytes - used_bytes) / bytes_per_second < 7 * 86400
ORDER BY full_in_days, namespace, name, mount_point;
