-- Which guests run which operating system and kernel?
SELECT
    os_pretty_name AS os,
    kernel_release AS kernel,
    count(*) AS guests,
    list(namespace || '/' || name ORDER BY namespace, name)[:3] AS such_as
FROM guests
GROUP BY ALL
ORDER BY os, kernel;
