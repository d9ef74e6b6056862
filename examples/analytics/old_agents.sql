-- Which agents are older than 6.0? (Another limit: SET VARIABLE oldest = '7.2' before this.)
SELECT
    agent_version,
    os_pretty_name AS os,
    count(*) AS guests,
    list(namespace || '/' || name ORDER BY namespace, name)[:3] AS such_as
FROM guests
WHERE regexp_extract_all(agent_version, '\d+')::BIGINT[]
    < regexp_extract_all(coalesce(getvariable('oldest'), '6.0'), '\d+')::BIGINT[]
GROUP BY ALL
ORDER BY any_value(regexp_extract_all(agent_version, '\d+')::BIGINT[]), agent_version, os;
