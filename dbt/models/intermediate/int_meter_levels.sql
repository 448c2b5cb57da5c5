{#  What peers do on a day is put as an index (1 is their mean day), so that weather, season, holidays and load shedding
    cancel out of what is left of a meter. The median over peers: a thief among them moves it little. Averages are of
    millionths as whole numbers, which add up to the same in any order. #}

{%- set look_back_days = var('suspicion_look_back_days') | int %}
{%- set blocks = range(1, 9) %}
{%- set least_hours = 18 %}
{%- set least_peers = 20 %}
{%- set least_index_days = 28 %}
{%- set few_repeated_hours = 6 %}
{%- set many_repeated_hours = 12 %}
{%- set highest_vacant_ratio = 1.6 %}

{{ config(
    unique_key=['meter_id', 'reading_date'],
    indexes=[{'columns': ['meter_id', 'reading_date']}],
    pre_hook="{{ replace_all(['meter_id', 'reading_date']) }}"
) }}

with

newest_day as (

    select max(reading_date) as newest_date
    from {{ ref('int_meter_days') }}

),

meter_days as (

    select *
    from {{ ref('int_meter_days') }}
    where
        reading_date > (
            select {{ shift_period('day', 'newest_day.newest_date', -1 * look_back_days) }}
            from newest_day
        )

),

registered as (

    select *
    from {{ ref('int_registered_meters') }}

),

last_days as (

    select
        reading_date,
        count(*) as meter_count
    from meter_days
    where covered_hours >= {{ least_hours }}
    group by 1

),

-- the last day that is there for most of the fleet, not for the few meters that report first
last_day as (

    select max(reading_date) as reading_date
    from last_days
    where 2 * meter_count >= (select max(most.meter_count) from last_days as most)

),

-- a replaced meter's days are those of the meter that took its place
days as (

    select
        coalesce(registered.replaced_by, meter_days.meter_id) as meter_id,
        meter_days.reading_date,
        meter_days.daily_consumption_kwh * 24 / (meter_days.covered_hours - meter_days.unsupplied_hours)
            as supplied_day_kwh,
        {% for block in blocks %}
            -- a meter that counts backwards has no shares
            case when meter_days.base_power_kw >= 0
                    then meter_days.block_{{ block }}_kwh / nullif(meter_days.daily_consumption_kwh, 0)
            end as share_{{ block }},
        {% endfor %}
        meter_days.peak_power_kw,
        meter_days.base_power_kw,
        case when meter_days.base_power_kw >= 0 then meter_days.hourly_variation end as hourly_variation,
        case when meter_days.base_power_kw >= 0 then meter_days.hourly_change end as hourly_change,
        case when meter_days.base_power_kw >= 0 then meter_days.load_factor end as load_factor,
        meter_days.hour_count,
        meter_days.zero_hours - meter_days.unsupplied_hours as zero_hours,
        meter_days.repeated_hours
    from meter_days
    cross join last_day
    left join registered on meter_days.meter_id = registered.meter_id
    where
        meter_days.reading_date <= last_day.reading_date
        and (registered.replaced_on is null or meter_days.reading_date < registered.replaced_on)
        -- what was not supplied could not be used: a day counts by its hours with supply
        and meter_days.covered_hours - meter_days.unsupplied_hours >= {{ least_hours }}

),

meters as (

    select
        days.meter_id,
        max(coalesce(registered.customer_class, 'all')) as customer_class,
        {{ exact_mean('days.supplied_day_kwh') }} as mean_kwh,
        -- of days on which somebody is there
        {{ exact_mean('case when days.repeated_hours < ' ~ few_repeated_hours ~ ' then days.base_power_kw end') }}
            as base_power_kw,
        {{ exact_mean('case when days.repeated_hours < ' ~ few_repeated_hours ~ ' then days.hourly_variation end') }}
            as hourly_variation,
        count(*) as day_count
    from days
    left join registered on days.meter_id = registered.meter_id
    group by 1

),

sized as (

    select
        *,
        ntile(3) over (partition by customer_class order by mean_kwh asc, meter_id asc) as size_third,
        count(*) over (partition by customer_class) as class_count
    from meters

),

-- peers are of the same class and size: who cools with air conditioners goes with the weather otherwise than others
grouped as (

    select
        meter_id,
        mean_kwh,
        base_power_kw,
        hourly_variation,
        day_count,
        case
            when class_count >= 3 * {{ least_peers }} then customer_class || ', size ' || size_third || ' of 3'
            when class_count >= {{ least_peers }} then customer_class
            else 'all'
        end as peer_group
    from sized

),

compared as (

    select
        days.*,
        grouped.peer_group,
        grouped.mean_kwh,
        -- only what runs by itself: a level that used to be the lowest of the day, all day alike, and not nothing
        coalesce(
            days.base_power_kw > 0
            and days.supplied_day_kwh / 24 <= {{ highest_vacant_ratio }} * grouped.base_power_kw
            and (
                days.repeated_hours >= {{ many_repeated_hours }}
                or days.hourly_variation <= grouped.hourly_variation / 2
            ),
            false
        ) as is_vacant,
        days.supplied_day_kwh / nullif(grouped.mean_kwh, 0) as own_ratio,
        -- who has little history has no mean to speak of
        grouped.mean_kwh > 0 and grouped.day_count >= {{ least_index_days }} as is_in_index
    from days
    inner join grouped on days.meter_id = grouped.meter_id

),

-- of each group, and of the fleet for groups that are too small on a day
peer_days as (

    select
        reading_date,
        peer_group,
        count(*) as peer_count,
        percentile_cont(0.5) within group (order by own_ratio) as index_ratio,
        {% for block in blocks %}
            {{ exact_mean('share_' ~ block) }} as share_{{ block }},
        {% endfor %}
        {{ exact_mean('hourly_change') }} as hourly_change,
        {{ exact_mean('hourly_variation') }} as hourly_variation
    from compared
    where is_in_index
    group by 1, 2

),

fleet_days as (

    select
        reading_date,
        percentile_cont(0.5) within group (order by own_ratio) as index_ratio
    from compared
    where is_in_index
    group by 1

),

peers as (

    select
        peer_group,
        {% for block in blocks %}
            {{ exact_mean('share_' ~ block) }} as share_{{ block }},
        {% endfor %}
        {{ exact_mean('hourly_change') }} as hourly_change,
        {{ exact_mean('hourly_variation') }} as hourly_variation
    from peer_days
    group by 1

)

select
    compared.meter_id,
    compared.reading_date,
    compared.peer_group,
    compared.supplied_day_kwh,
    compared.mean_kwh,
    case
        when peer_days.peer_count >= {{ least_peers // 4 }} then peer_days.index_ratio
        else fleet_days.index_ratio
    end as peer_index,
    {% for block in blocks %}
        compared.share_{{ block }} - coalesce(peer_days.share_{{ block }} - peers.share_{{ block }}, 0)
            as share_{{ block }},
    {% endfor %}
    {% for block in blocks %}
        {{ '+ ' if not loop.first }}compared.share_{{ block }} * compared.share_{{ block }}
    {% endfor %}
        as share_square,
    compared.hourly_change - coalesce(peer_days.hourly_change - peers.hourly_change, 0) as hourly_change,
    compared.hourly_variation - coalesce(peer_days.hourly_variation - peers.hourly_variation, 0) as hourly_variation,
    compared.peak_power_kw,
    compared.base_power_kw,
    compared.load_factor,
    compared.hour_count,
    compared.zero_hours,
    compared.repeated_hours,
    compared.is_vacant
from compared
left join fleet_days on compared.reading_date = fleet_days.reading_date
left join peer_days
    on compared.reading_date = peer_days.reading_date and compared.peer_group = peer_days.peer_group
left join peers on compared.peer_group = peers.peer_group
